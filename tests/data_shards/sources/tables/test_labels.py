"""What label columns mean: whole numbers, ordered classes, yes and no, and every spelling of nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data_shards.sources.tables.cells import MISSING, number
from data_shards.sources.tables.labels import Labels, Reading, encode_labels
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task


def encoded(*columns: Sequence[str], **how: Any) -> Labels:
    """The labels of columns called a, b, c ..."""
    rows = list(zip(*columns, strict=True))
    where = [f"row {place + 2} of the table" for place in range(len(rows))]
    return encode_labels(rows, where, "abcdef"[: len(columns)], Reading(**how))


def values(labels: Labels) -> list[Any]:
    return [None if vector is None else vector.tolist() for vector in labels.vectors]


@pytest.mark.parametrize(
    "cells, found, classes",
    [
        (["1", "2", "3"], [1, 2, 3], {1: "1", 2: "2", 3: "3"}),
        (["1.0", "3.0", "1"], [1, 3, 1], {1: "1", 3: "3"}),
        (["6.0", "10.0", "9,0"], [6, 10, 9], {6: "6", 9: "9", 10: "10"}),
        (["-1", "2", "+2"], [0, 1, 1], {0: "-1", 1: "2"}),
        (["10", "2", "1"], [10, 2, 1], {1: "1", 2: "2", 10: "10"}),
        (["0.5", "0.0", "1.0"], [1, 0, 2], {0: "0", 1: "0.5", 2: "1"}),
        (["0", "12345678901234567890", "12345678901234567891"], [0, 1, 2], None),
        (["grade 10", "grade 2", "grade 1"], [2, 1, 0], {0: "grade 1", 1: "grade 2", 2: "grade 10"}),
        (["glioma", "benign", "cyst"], [2, 0, 1], {0: "benign", 1: "cyst", 2: "glioma"}),
    ],
)
def test_numbers_and_words_are_classes_in_their_order(
    cells: list[str], found: list[int], classes: dict[int, str] | None
) -> None:
    labels = encoded(cells, task=Task.ordinal)
    assert values(labels) == [[value] for value in found]
    assert classes is None or labels.classes == classes
    order = [float(name) for _, name in sorted(labels.classes.items())] if cells[0][0].isdigit() else []
    assert order == sorted(order)


@pytest.mark.parametrize(
    "yes, no",
    [
        ("1", "0"), ("1.0", "0.0"), ("yes", "no"), ("Y", "N"), ("True", "False"), ("TRUE", "FALSE"), ("t", "f"),
        ("positive", "negative"), ("Pos", "neg"), ("present", "absent"), ("+", "-"), ("ja", "nein"), ("x", ""),
    ],
)  # fmt: skip
def test_every_spelling_of_yes_and_no_is_read_in_one_column_and_in_several(yes: str, no: str) -> None:
    single = encoded([yes, no, yes])
    assert values(single) == [[1], [0], [1]] and single.task is Task.binary and len(single.classes) == 2
    several = encoded([yes, no, yes], [no, no, yes])
    assert values(several) == [[1, 0], [0, 0], [1, 1]] and several.classes == {0: "a", 1: "b"}
    assert several.task is Task.multilabel


@pytest.mark.parametrize("cell", ["", *MISSING, "NA", "NaN", "None", "NULL", "N/A", "<NA>"])
def test_every_spelling_of_nothing_is_no_label(cell: str) -> None:
    for yes, no in (("1", "0"), ("benign", "sick"), ("yes", "no")):
        labels = encoded([yes, cell, no])
        assert values(labels)[1] is None and len(labels.classes) == 2
        assert any(repr(cell) in warning for warning in labels.warnings) == bool(cell)
    assert values(encoded(["0.5", cell], task=Task.regression)) == [[0.5], None]
    assert values(encoded(["1", cell], ["0", cell])) == [[1, 0], None]


def test_a_class_that_is_called_like_a_missing_value_is_one_when_the_option_says_so() -> None:
    labels = encoded(["None", "mild", "", "NA"], missing=["na"])
    assert values(labels) == [[0], [1], None, None] and labels.classes == {0: "None", 1: "mild"}
    assert any("a class is called 'None'" in warning for warning in labels.warnings)
    named = encoded(["None", "mild", "NA"], classes={0: "None", 1: "mild"})
    assert values(named) == [[0], [1], None]
    assert any("'unknown'" in warning for warning in encoded(["unknown", "mild"]).warnings)


@pytest.mark.parametrize(
    "cells", [["None", "none"], ["Benign", "benign"], ["low_grade", "low grade"], ["a  b", "a b"], ["é", "e\u0301"]]
)
def test_two_spellings_of_one_label_are_pointed_out(cells: list[str]) -> None:
    (warning, *_) = encoded([*cells, "other"], missing=()).warnings
    assert "two spellings of one" in warning and all(repr(cell) in warning for cell in cells)


@pytest.mark.parametrize(
    "rare, common",
    [
        ("smal", "small"), ("lagre", "large"), ("Larga", "large"), ("mld", "mild"), ("yse", "yes"),
        ("lowgrade", "low grade"), ("grade 2 glioma", "grade 2 gliomas"), ("adenocarinma", "adenocarcinoma"),
        ("mäßg", "mäßig"),
    ],
)  # fmt: skip
def test_a_rare_name_that_is_nearly_a_common_one_is_pointed_out_with_their_numbers(rare: str, common: str) -> None:
    found = encoded([*[common] * 20, "another", rare, *["another"] * 18])
    (warning,) = found.warnings
    assert f"{rare!r} (1) and {common!r} (20) are different classes; are they two spellings of one" in warning
    assert set(found.classes.values()) == {rare, common, "another"}
    assert encoded([*[common] * 20, *["another"] * 19, *[rare] * 3]).warnings == []  # too often for a slip of the hand


@pytest.mark.parametrize(
    "rare, common",
    [
        ("grade 1", "grade 2"), ("T1", "T2"), ("T1w", "T2w"), ("stage 10", "stage 1"), ("type II", "type III"),
        ("grade A", "grade B"), ("LAD", "LAO"), ("< 5 mm", "> 5 mm"), ("benign", "malignant"), ("tumour", "no tumour"),
        ("mild", "moderate"), ("left", "right"), ("carcinoma", "adenocarcinoma"), ("grade1", "grade 2"),
    ],
)  # fmt: skip
def test_names_that_differ_by_a_number_or_by_much_are_names_of_their_own(rare: str, common: str) -> None:
    assert encoded([*[common] * 20, *["another"] * 18, rare]).warnings == []


def test_spellings_of_yes_are_one_label_and_pointed_out() -> None:
    labels = encoded(["Yes", "yes", "yes", "No"])
    assert values(labels) == [[1], [1], [1], [0]] and labels.classes == {0: "No", 1: "yes"}
    assert labels.warnings == ["'Yes' and 'yes' are read as one label"]


def test_some_of_several_columns_that_say_nothing_are_what_the_option_says() -> None:
    columns = ["1", "1.0"], ["0", ""]
    with pytest.raises(DataError, match="row 3 of the table: some label columns say nothing"):
        encoded(*columns)
    assert values(encoded(*columns, partial="no")) == [[1, 0], [1, 0]]
    assert values(encoded(*columns, partial="drop")) == [[1, 0], None]


@pytest.mark.parametrize(
    "cells, how, message",
    [
        (["1", "2", "3"], {"task": Task.binary}, "task binary, and there are 3 classes"),
        (["1", "DoeJane"], {}, "1 of 2 labels are numbers, the others are words"),
        (["1", "-1"], {"task": Task.multilabel}, "row 3 of the table: the label says neither yes nor no"),
        (["1", "DoeJane"], {"classes": {1: "a"}}, "row 3 of the table: the label is none of the 1 classes"),
        ([f"{place}.5" for place in range(25)], {}, "this looks like identifiers or measurements"),
        (["1,234", "2"], {"task": Task.regression}, "row 2 of the table: the label has a comma that can divide"),
    ],
)
def test_what_fits_nothing_is_refused_without_its_text(cells: list[str], how: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        encoded(cells, **how)
    assert "DoeJane" not in str(caught.value)


def test_the_order_of_ordinal_words_is_told() -> None:
    (warning,) = encoded(["mild", "severe", "moderate"], task=Task.ordinal).warnings
    assert "mild < moderate < severe" in warning
    (warning,) = encoded(["0.5", "1"]).warnings
    assert "numbers with fractions" in warning


@pytest.mark.parametrize(
    "text, semicolons, value",
    [
        ("1.5", False, 1.5), ("1,5", False, 1.5), ("1,234", True, 1.234), ("0,125", False, 0.125),
        ("-3e2", False, -300),
        (",5", False, 0.5), ("1,234", False, None), ("1.234,5", True, None), ("1_000", False, None),
        ("inf", False, None), ("nan", False, None), ("٣", False, None),
    ],
)  # fmt: skip
def test_numbers_have_a_point_or_a_comma_and_nothing_is_guessed(
    text: str, semicolons: bool, value: float | None
) -> None:
    if value is not None:
        assert number(text, decimal_comma=semicolons) == value
        return
    with pytest.raises(DataError) as caught:
        number(text, decimal_comma=semicolons)
    assert text not in str(caught.value)


def test_labels_are_integers_or_floats() -> None:
    for labels, dtype in ((encoded(["1.0", "2"]), np.int64), (encoded(["1", "2"], task=Task.regression), np.float64)):
        assert labels.vectors[0] is not None and labels.vectors[0].dtype == dtype


@pytest.mark.parametrize(
    "classes, cells, found",
    [
        ({0: "1", 1: "2", 2: "3"}, ["1", "1.0", "2.0", "3"], [0, 0, 1, 2]),
        ({0: "1", 1: "0"}, ["1.0", "1", "0", "0.0"], [0, 0, 1, 1]),
        ({0: "0.5", 1: "1.0"}, ["0.50", "1", "1.0"], [0, 1, 1]),
        ({1: "1", 2: "many"}, ["1.0", "2", "many"], [1, 2, 2]),
        ({0: "benign", 1: "malignant"}, ["1.0", "benign", "0"], [1, 0, 0]),
    ],
)
def test_given_classes_that_are_numbers_are_found_by_every_spelling_of_the_number(
    classes: dict[int, str], cells: list[str], found: list[int]
) -> None:
    labels = encoded(cells, classes=classes)
    assert values(labels) == [[value] for value in found] and labels.classes == classes


def test_a_number_that_could_be_a_name_or_a_value_of_given_classes_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 3 classes"):
        encoded(["1", "0"], classes={0: "1", 1: "2", 2: "3"})
    with pytest.raises(DataError, match="two names of classes are the same number"):
        encoded(["1"], classes={0: "1", 1: "1.0"})


def test_three_decimals_after_a_comma_are_those_of_a_table_with_semicolons() -> None:
    cells = ["1,000", "2,000", "3,000"]
    numbered = encoded(cells, decimal_comma=True)
    assert values(numbered) == [[1], [2], [3]] and numbered.classes == {1: "1", 2: "2", 3: "3"}
    given = encoded(cells, decimal_comma=True, classes={1: "a", 2: "b", 3: "c"})
    assert values(given) == [[1], [2], [3]]
    several = encoded(["1,000", "0,000"], ["0,000", "1,000"], decimal_comma=True)
    assert values(several) == [[1, 0], [0, 1]]
    binary = encoded(["1,000", "no"], decimal_comma=True)
    assert values(binary) == [[1], [0]]
    for columns in ((cells[:2], ["0", "1"]), (cells,)):
        with pytest.raises(DataError):
            encoded(*columns, task=Task.multilabel)


@pytest.mark.parametrize(
    "cells, found",
    [
        (["T", "F", "N"], [2, 0, 1]),
        (["yes", "true", "no"], [2, 1, 0]),
        (["positive", "present", "absent"], [1, 2, 0]),
        (["Y", "yes", "No"], [1, 1, 0]),
        (["sí", "si", "no"], [1, 1, 0]),
        (["1", "yes", "no"], [1, 1, 0]),
        (["T", "F"], [1, 0]),
    ],
)
def test_only_spellings_of_one_word_are_one_label(cells: list[str], found: list[int]) -> None:
    labels = encoded(cells)
    assert values(labels) == [[value] for value in found] and len(labels.classes) == len(set(found))


@pytest.mark.parametrize(
    "classes, cells, found",
    [
        ({0: "-", 1: "+"}, ["+", "-", ""], [[1], [0], None]),
        ({0: "x", 1: "o"}, ["x", "x", ""], [[0], [0], None]),
        ({0: "o", 1: "x"}, ["x", "o", ""], [[1], [0], None]),
    ],
)
def test_marks_that_are_given_classes_are_these(
    classes: dict[int, str], cells: list[str], found: list[list[int] | None]
) -> None:
    assert values(encoded(cells, classes=classes)) == found
    assert values(encoded(cells, classes=classes, task=Task.binary)) == found


@pytest.mark.parametrize(
    "cells, order, told",
    [
        (["<1", "1-5", ">5"], None, True),
        (["<10", "10-20", ">20"], None, True),
        (["grade 1", "Grade 2", "grade 3"], None, True),
        (["low 1", "high 2"], None, True),
        (["T1N0", "T1N1", "T2N0"], ["T1N0", "T1N1", "T2N0"], True),
        (["mild", "severe"], ["mild", "severe"], True),
        (["grade 1.5", "grade 1.25", "grade 1"], ["grade 1", "grade 1.25", "grade 1.5"], False),
        (["0 SD", "-1 SD", "-2 SD", "+1 SD"], ["-2 SD", "-1 SD", "0 SD", "+1 SD"], False),
        (
            ["0 SD", "\N{MINUS SIGN}1 SD", "\N{MINUS SIGN}2 SD"],
            ["\N{MINUS SIGN}2 SD", "\N{MINUS SIGN}1 SD", "0 SD"],
            False,
        ),
        (["grade-10", "grade-2"], ["grade-2", "grade-10"], False),
    ],
)
def test_the_order_of_ordinal_words_is_that_of_their_number_or_is_told(
    cells: list[str], order: list[str] | None, told: bool
) -> None:
    labels = encoded(cells, task=Task.ordinal)
    assert order is None or [labels.classes[place] for place in range(len(order))] == order
    assert any("the order of the classes" in warning for warning in labels.warnings) == told


def test_decimal_commas_in_ordinal_words_are_read_in_a_table_of_semicolons() -> None:
    labels = encoded(["grade 1,5", "grade 1,25"], task=Task.ordinal, decimal_comma=True)
    assert labels.classes == {0: "grade 1,25", 1: "grade 1,5"} and labels.warnings == []
