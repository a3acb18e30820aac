"""Columns of the tables of ADNI by what they are for; names and spellings have changed over the years."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_shards.sources.tables.roles import plain

_LOOKED_AT = 50


@dataclass(frozen=True)
class Role:
    """One kind of column.

    Attributes:
        names: of the column, as :func:`~data_shards.sources.adni.facts.plain` leaves them, the surest first.
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
