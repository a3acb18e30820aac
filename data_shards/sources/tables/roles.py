"""Tables of studies: columns are found by what they are for, and messages never repeat what stands in a cell."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from data_shards.sources.tables.csv_file import CsvFile, read_csv
from data_shards.sources.tables.privacy import identifies, is_age, kept_number, names_person
from data_shards.support.documents import Document
from data_shards.support.errors import DataError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that a cell names, in small letters."""

ROLES = ("path", "subject", "study", "bag", "image", "label", "split", "organ", "modality")
"""What a column can be for, beside further numbers."""

# Columns that take a role without being named for it.
_NAMES = {"path": ("path", "file")}
# How a column of patients is called when nobody was told that its role is "subject".
_SUBJECTS = frozenset((
    "patient", "patientid", "patientname", "subjectid", "participant", "participantid", "caseid", "person",
    "personid", "ptid", "mrn", "pid", "rid",
))  # fmt: skip
_CLOSE = 0.8


def _listed(names: object) -> object:
    return (names,) if isinstance(names, str) else names


class Columns(Document):
    """Names of columns by role. A role that is not named uses the column of its own name where there is one."""

    path: str | None = Field(None, description="the file, or the folder of a DICOM series, relative to the root")
    subject: str | None = Field(None, description="who is shown; is hashed")
    study: str | None = Field(None, description="rows of one study are the images of one sample")
    bag: str | None = Field(
        None, description="studies of one bag are one case of a classifier; without study, rows that differ in image"
    )
    image: str | None = Field(None, description="name of the image in its study, such as t2w; mask for class ids")
    label: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = Field(
        None, description="one column, or several for multilabel and regression"
    )
    split: str | None = Field(None, description="train, val or test; training, validation and testing are also read")
    organ: str | None = Field(None, description="body part, an entry of the vocabulary")
    modality: str | None = Field(None, description="how the image was made, an entry of the vocabulary")
    attributes: dict[str, str] = Field({}, description="columns of further numbers, by the name they shall have")
    groups: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="columns such as site or sex by which a classifier is scored; shards do not keep them"
    )


@dataclass(frozen=True)
class Row:
    """One row of data.

    Attributes:
        number: where it stands in the file, as a spreadsheet counts.
        cells: stripped text by role; roles without a column are missing.
        label: cells of the label columns; empty without such columns. Ages above 89 are 90 in them.
        attributes: cells of the further numbers by name.
        groups: cells of the columns to group by, by the names that were asked for. Ages above 89 are 90 in them.
    """

    number: int
    cells: dict[str, str] = field(repr=False)
    label: tuple[str, ...] = field(repr=False)
    attributes: dict[str, str] = field(repr=False)
    groups: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"row {self.number} of the table"


@dataclass(frozen=True)
class Table:
    """A table that has been read.

    Attributes:
        rows: all of them, in order.
        label_names: the label columns, as the header calls them.
        attribute_names: the columns of further numbers by name, as the header calls them.
        decimal_comma: cells are separated by semicolons, as programs do that write numbers with a comma.
        warnings: what its owner has to know of how it was read.
    """

    rows: list[Row]
    label_names: tuple[str, ...]
    attribute_names: dict[str, str] = field(default_factory=dict)
    decimal_comma: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Places:
    """Where the columns are: by role, of the label, of the attributes, of the groups."""

    roles: dict[str, int]
    labels: list[int]
    attributes: dict[str, int]
    groups: dict[str, int]


def read_table(path: Path, columns: Columns, roles: Sequence[str] = ROLES) -> Table:
    """Read a CSV file, see :func:`~data_shards.sources.tables.csv_file.read_csv`.

    A column is found by its name; else by its letters and digits alone, small or capital. Other columns may be there.

    Args:
        path: the file.
        columns: names of columns by role.
        roles: those that are of use; columns of others are left alone.

    Raises:
        DataError: the file cannot be read, has no row of data or one of another length than the header, a column is
            missing or there twice, or a column to be kept identifies somebody. The message has the number of the row
            and never the text of a cell.
    """
    try:
        content = read_csv(path)
        places = _find(content.header, columns, roles)
        names = tuple(content.header[place] for place in places.labels)
        decimal_comma = content.delimiter == ";"
        rows = []
        for number, cells in zip(content.numbers, content.rows, strict=True):
            if len(cells) != len(content.header):
                raise DataError(f"row {number} has {len(cells)} cells, the header {len(content.header)}")
            label = tuple(_kept(cells[place], content.header[place], decimal_comma) for place in places.labels)
            rows.append(
                Row(
                    number=number,
                    cells={role: cells[place] for role, place in places.roles.items()},
                    label=label,
                    attributes={name: cells[place] for name, place in places.attributes.items()},
                    groups={
                        name: _kept(cells[place], content.header[place], decimal_comma)
                        for name, place in places.groups.items()
                    },
                )
            )
        if not rows:
            raise DataError("the table has a header and no rows")
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    attributes = {name: content.header[place] for name, place in places.attributes.items()}
    warnings = (*content.warnings, *_unused(content, columns, places, roles))
    return Table(rows, names, attributes, decimal_comma, warnings)


def has_columns(path: Path, names: Sequence[str]) -> bool:
    """Whether the table has a column of each of these names.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        header = read_csv(path).header
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return all(_matches(header, name) for name in names)


def plain(name: str) -> str:
    """Letters and digits alone, in small letters: so spellings of one name are equal."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _find(header: Sequence[str], columns: Columns, roles: Sequence[str]) -> _Places:
    found = {}
    given = [*(getattr(columns, role) for role in roles if role != "label"), *(columns.label or ())]
    taken = {place for name in given if name is not None for place in _matches(header, name)}
    for role in roles:
        if role == "label":
            continue
        named = getattr(columns, role)
        names = (named,) if named is not None else _NAMES.get(role, (role,))
        # A column that is named for one role is not that of another, whatever it is called.
        present = [
            name
            for name in names
            if (places := _matches(header, name)) and (named is not None or not taken.issuperset(places))
        ]
        if present or named is not None or role == "path":
            found[role] = _place(header, present[:1] or names, role)
    labels: list[int] = []
    if "label" in roles and columns.label is not None:
        labels = [_place(header, (name,), "label") for name in columns.label]
    elif "label" in roles and _matches(header, "label"):
        labels = [_place(header, ("label",), "label")]
    attributes = {key: _place(header, (name,), key) for key, name in columns.attributes.items()}
    groups = {name: _place(header, (name,), "groups") for name in columns.groups}
    for what, place in (*(("label", place) for place in labels), *attributes.items(), *groups.items()):
        reason = identifies(header[place]) or identifies(what) or "the subject" * (place == found.get("subject"))
        if reason:
            raise DataError(f"column {header[place]!r} for {what} is {reason}")
    for name, place in groups.items():
        if reason := _groups_nothing(header[place], place, found, labels):
            raise DataError(f"column {name!r} for groups is {reason}")
    return _Places(found, labels, attributes, groups)


def _groups_nothing(name: str, place: int, found: Mapping[str, int], labels: Sequence[int]) -> str:
    """Why no scores can be told by the values of a column; empty when they can."""
    if place in labels:
        return "the label: a group would have one class, of which nothing can be told apart"
    for role in ("path", "study", "bag"):
        if place == found.get(role):
            return f"the {role}"
    return "the number or name of a person" if names_person(name) else ""


def _matches(header: Sequence[str], name: str) -> list[int]:
    """The columns of this name; if none is written so, those with the same letters and digits."""
    exact = [place for place, other in enumerate(header) if other == name]
    return exact or [place for place, other in enumerate(header) if plain(name) and plain(other) == plain(name)]


def _place(header: Sequence[str], names: Sequence[str], role: str) -> int:
    """The column called by one of ``names``, of which only one is there.

    Only a column with nearly this name is named in the message: without a header, the first row is one of data.
    """
    places = [place for name in names for place in _matches(header, name)]
    if len(places) == 1:
        return places[0]
    if places:
        raise DataError(f"column {names[0]!r} is there {len(places)} times")
    close = [other for name in names for other in difflib.get_close_matches(name, header, n=1, cutoff=0.6)]
    hint = f"; did you mean {close[0]!r}?" if close else f" among the {len(header)} of the header"
    raise DataError(f"no column {' or '.join(map(repr, names))} for the role {role}{hint}")


def _kept(cell: str, name: str, decimal_comma: bool) -> str:
    """The cell of a label; an age as it may be passed on."""
    if not is_age(name):
        return cell
    try:
        return f"{kept_number(cell, name, decimal_comma=decimal_comma):.10g}"
    except DataError:
        return cell  # reading it as a label says what is wrong


def _unused(content: CsvFile, columns: Columns, places: _Places, roles: Sequence[str]) -> list[str]:
    """Columns that are left alone and look as if they had been meant for a role that has none."""
    used = {*places.roles.values(), *places.labels, *places.attributes.values(), *places.groups.values()}
    names = [name for place, name in enumerate(content.header) if place not in used and plain(name)]
    warnings = []
    if "subject" in roles and "subject" not in places.roles:
        warnings += [
            f"column {name!r} is not used, so images of one patient can come into different splits; "
            "the column that keeps them together is called subject"
            for name in names
            if plain(name) in _SUBJECTS
        ]
    free = [role for role in roles if role not in places.roles and (role != "label" or not places.labels)]
    for name in names:
        close = difflib.get_close_matches(plain(name), free, n=1, cutoff=_CLOSE)
        if close and plain(name) not in _SUBJECTS:
            warnings.append(f"column {name!r} is not used; did you mean {close[0]!r}?")
    return warnings
