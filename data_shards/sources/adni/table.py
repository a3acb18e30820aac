"""Tables of an export, their columns by what they are for, and the table of a collection.

Messages have numbers of rows and never the text of a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.sources.adni.facts import (
    Facts,
    LeftOut,
    age_of,
    date_of,
    image_id_of,
    is_withdrawn,
    modality_of,
    ptid_of,
    sex_of,
)
from data_shards.sources.tables.csv_file import read_csv
from data_shards.sources.tables.roles import plain
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError

_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]+)")
_LOOKED_AT = 50


@dataclass(frozen=True)
class Table:
    """A table that has been read.

    Attributes:
        name: how messages call it.
        file: name of the file, in small letters.
        header: names of the columns.
        rows: cells by row, empty rows left out.
        numbers: of the rows in the file.
        decimal_comma: cells are separated by semicolons, as programs do that write numbers with a comma.
    """

    name: str
    file: str = field(repr=False)
    header: list[str] = field(repr=False)
    rows: list[list[str]] = field(repr=False)
    numbers: list[int] = field(repr=False)
    decimal_comma: bool = False

    def columns(self, kinds: Mapping[str, Role]) -> dict[str, int]:
        """Places of the columns by role."""
        return columns(self.header, self.rows, kinds)

    def cells(self, places: Mapping[str, int]) -> Iterator[tuple[str, dict[str, str] | None]]:
        """For each row how messages call it, and its cells by role; None when it is longer or shorter."""
        for number, row in zip(self.numbers, self.rows, strict=True):
            whole = len(row) == len(self.header)
            yield (
                f"row {number} of {self.name}",
                {role: self._cell(row[place]) for role, place in places.items()} if whole else None,
            )

    def _cell(self, cell: str) -> str:
        return _DECIMAL_COMMA.sub(r"\1.\2", cell) if self.decimal_comma and _DECIMAL_COMMA.fullmatch(cell) else cell


def read_table(path: Path, name: str) -> Table:
    """Read a CSV file, see :func:`~data_shards.sources.tables.csv_file.read_csv`.

    Args:
        path: the file.
        name: how messages are to call it.

    Raises:
        DataError: it is empty, too large, or no text in CSV.
    """
    try:
        content = read_csv(path)
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{name}: cannot be read ({type(error).__name__})") from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return Table(name, path.name.casefold(), content.header, content.rows, content.numbers, content.delimiter == ";")


@dataclass(frozen=True)
class Role:
    """One kind of column.

    Attributes:
        names: of the column, as :func:`~data_shards.sources.tables.roles.plain` leaves them, the surest first.
        values: what every cell looks like, by which a column of another name is known; None where values do not tell.
    """

    names: tuple[str, ...]
    values: re.Pattern[str] | None = None


_PTID = Role(("ptid", "subjectid", "subject", "subjectidentifier"), re.compile(r"[0-9]{3}_S_[0-9]{4,5}"))

COLLECTION: Mapping[str, Role] = {
    "ptid": _PTID,
    "image": Role(("imagedataid", "imageid", "imageuid"), re.compile(r"I[0-9]+")),
    "description": Role(("description", "seriesdescription", "imagedescription")),
    "modality": Role(("modality", "imagemodality")),
    "kind": Role(("type", "imagetype")),
    "date": Role(("acqdate", "studydate", "acquisitiondate", "scandate", "imagedate")),
    "visit": Role(("visit", "viscode", "visitcode", "visitidentifier")),
    "group": Role(("group", "researchgroup")),
    "sex": Role(("sex", "gender", "ptgender", "subjectsex")),
    "age": Role(("age", "subjectage")),
}

STUDY: Mapping[str, Role] = {
    "ptid": _PTID,
    "rid": Role(("rid",)),
    "visit": Role(("viscode2", "viscode", "visitcode", "visit")),
    "date": Role(("examdate",)),
    "joined": Role(("origprot",)),
    "diagnosis": Role(("dx", "diagnosis")),
    "first_diagnosis": Role(("dxbl",)),
    "first_age": Role(("age",)),
    "years": Role(("yearsbl",)),
    "sex": Role(("ptgender", "gender", "sex")),
}

# Numbers of ADNIMERGE that can become attributes, and the range of their values; codes such as -4 mean a missing one.
_POSITIVE = (
    "FDG PIB AV45 FBB ABETA TAU PTAU Ventricles Hippocampus WholeBrain Entorhinal Fusiform MidTemp ICV PTEDUCAT "
    "CDRSB ADAS11 ADAS13 ADASQ4 RAVLT_immediate RAVLT_forgetting RAVLT_perc_forgetting LDELTOTAL DIGITSCOR TRABSCOR "
    "FAQ EcogPtTotal EcogSPTotal"
)
_DIFFERENCES = "RAVLT_learning mPACCdigit mPACCtrailsB"
MEASURES: Mapping[str, tuple[float, float]] = {
    "MMSE": (0, 30),
    "APOE4": (0, 2),
    "MOCA": (0, 30),
    **dict.fromkeys(_POSITIVE.split(), (0, 1e9)),
    **dict.fromkeys(_DIFFERENCES.split(), (-1e3, 1e3)),
}


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], roles: Mapping[str, Role]) -> dict[str, int]:
    """The column of each role that has one: by name, else the only one whose cells look like it."""
    names = [plain(name) for name in header]
    found = {
        role: names.index(next(name for name in entry.names if name in names))
        for role, entry in roles.items()
        if not set(entry.names).isdisjoint(names)
    }
    for role, entry in roles.items():
        if role in found or entry.values is None:
            continue
        alike = [
            place for place in range(len(names)) if place not in found.values() and _match(rows, place, entry.values)
        ]
        if len(alike) == 1:
            found[role] = alike[0]
    return found


def _match(rows: Sequence[Sequence[str]], place: int, pattern: re.Pattern[str]) -> bool:
    cells = [row[place].strip() for row in rows[:_LOOKED_AT] if place < len(row)]
    cells = [cell for cell in cells if cell]
    return bool(cells) and all(pattern.fullmatch(cell) for cell in cells)


@dataclass(frozen=True)
class Row:
    """One row and how messages call it."""

    item: str
    facts: Facts = field(repr=False)


@dataclass
class Collection:
    """The usable rows of all collections of an export, and what of them was left out."""

    by_image: dict[int, Row] = field(default_factory=dict)
    by_description: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [*self.by_image.values(), *(row for rows in self.by_description.values() for row in rows)]

    def find(self, facts: Facts) -> list[Row]:
        """The rows of the image of which a path says ``facts``.

        A row without image identifier is found by subject, description and, where it has one, the date.
        """
        row = self.by_image.get(facts.image_id or 0)
        if row is not None:
            return [row]
        alike = self.by_description.get((facts.ptid, plain(facts.description)), [])
        return [row for row in alike if row.facts.date is None or row.facts.date == facts.date]


def is_collection(table: Table) -> bool:
    """Whether the columns are those of a collection."""
    found = table.columns(COLLECTION).keys()
    return {"ptid", "description"} <= found and not found.isdisjoint(("image", "modality", "kind"))


def read_collections(tables: Iterable[Table]) -> Collection:
    """Read the rows of all collections together."""
    collection = Collection()
    for table in tables:
        for item, cells in table.cells(table.columns(COLLECTION)):
            reason = "more or fewer cells than the header"
            facts = Facts()
            if cells is not None:
                facts = _facts(cells)
                reason = _problem(facts, cells, collection)
            if reason:
                collection.left_out.append(LeftOut(item, reason, facts.ptid, lost=cells is None))
            elif facts.image_id is not None:
                collection.by_image.setdefault(facts.image_id, Row(item, facts))
            else:
                key = (facts.ptid, plain(facts.description))
                collection.by_description.setdefault(key, []).append(Row(item, facts))
    return collection


def _problem(facts: Facts, cells: Mapping[str, str], collection: Collection) -> str:
    """Why a row cannot be used; empty when it can, also when it repeats an earlier one."""
    if not facts.ptid:
        return "no subject identifier that can be read"
    if is_withdrawn(facts.ptid):
        return "its subject was withdrawn by ADNI (381_S_10###)"
    if facts.image_id is None and cells.get("image"):
        return "no image identifier that can be read"
    earlier = collection.by_image.get(facts.image_id or 0)
    if earlier is not None and earlier.facts.ptid != facts.ptid:
        return f"gives the image of {earlier.item} to another subject"
    return ""


def _facts(cells: Mapping[str, str]) -> Facts:
    return Facts(
        ptid=ptid_of(cells["ptid"]),
        image_id=image_id_of(cells.get("image", "")),
        description=cells["description"],
        modality=modality_of(cells.get("modality", "")),
        kind=cells.get("kind", ""),
        date=date_of(cells.get("date", "")),
        visit=cells.get("visit", ""),
        group=cells.get("group", ""),
        sex=sex_of(cells.get("sex", "")),
        age_years=age_of(cells.get("age", "")),
    )
