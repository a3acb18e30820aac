"""Labels of a table that somebody else made, read with the classes of a classifier."""

from __future__ import annotations

import pytest

from data_shards.sources.tables.classes import number_classes
from data_shards.sources.tables.labels import Reading
from data_shards.support.errors import DataError

WORDS = {0: "benign", 1: "malignant"}


def values(cells: list[str], classes: dict[int, str], *, class_values: bool) -> list[int | None]:
    numbered = number_classes(cells, Reading(classes=classes, class_values=class_values))
    return [numbered.value_of(cell) for cell in cells]


def test_numbers_are_not_taken_for_classes_that_a_classifier_numbered_itself() -> None:
    assert values(["1", "0"], WORDS, class_values=True) == [1, 0]
    assert values(["malignant", "benign"], WORDS, class_values=False) == [1, 0]
    with pytest.raises(DataError, match="labels are numbers, the first 1; the classes are called benign, malignant"):
        values(["1", "0"], WORDS, class_values=False)
    assert values(["malignant", "1"], WORDS, class_values=False) == [1, None]


def test_names_that_are_numbers_and_yes_and_no_are_met_by_numbers() -> None:
    assert values(["2", "1.0"], {0: "1", 1: "2"}, class_values=False) == [1, 0]
    assert values(["1", "0"], {0: "no", 1: "yes"}, class_values=False) == [1, 0]
