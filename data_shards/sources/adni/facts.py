"""What an export says of one image, and how its values are written."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass, fields, replace

from data_shards.sources.privacy import age_in_years
from data_shards.sources.tables.cells import number_or_none
from data_shards.sources.tables.roles import plain
from data_shards.support.errors import DataError

_PTID = re.compile(r"(?<![0-9])([0-9]{3}_S_[0-9]{4,5})(?![0-9])", re.IGNORECASE)
_IMAGE_ID = re.compile(r"[iI]?([0-9]{1,12})")
_DATES = ("%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y", "%Y%m%d", "%d-%b-%Y", "%b %d, %Y")
_TIME_OF_DAY = re.compile(r"[ T_][0-9]{1,2}[:_][0-9]{2}.*")
_SEXES = {"m": 0, "male": 0, "f": 1, "female": 1}
_MODALITIES = {
    **dict.fromkeys(("mr", "mri"), "mri"),
    **dict.fromkeys(("pt", "pet"), "pet"),
    **{name: name for name in ("ct", "fmri", "dti", "asl", "spect")},
}


@dataclass(frozen=True)
class Facts:
    """What is known of one image; what is not known is empty or None. Never shown to anybody.

    Attributes:
        ptid: identifier of the subject, ``123_S_4567``.
        image_id: number of the image at LONI IDA.
        description: of the series and what was done to it, in the words of the export.
        modality: ``mri``, ``pet``, ``fmri``, ``dti``, ``ct`` or another one.
        kind: ``Original``, ``Processed`` and so on.
        date: of the acquisition.
        visit: code of the visit, as written.
        group: research group of the subject, as written.
        sex: 0 male, 1 female.
        age_years: at the acquisition.
        tracer: radiopharmaceutical of a PET image, as written.
    """

    ptid: str = ""
    image_id: int | None = None
    description: str = ""
    modality: str = ""
    kind: str = ""
    date: datetime.date | None = None
    visit: str = ""
    group: str = ""
    sex: int | None = None
    age_years: float | None = None
    tracer: str = ""

    def filled_from(self, other: Facts) -> Facts:
        """These facts, with those of ``other`` where nothing is known."""
        empty = [field.name for field in fields(self) if getattr(self, field.name) in ("", None)]
        return replace(self, **{name: getattr(other, name) for name in empty})


def ptid_of(text: str) -> str:
    """The subject identifier in ``text``; empty when there is none."""
    found = _PTID.search(text)
    return found.group(1).upper() if found else ""


def rid_of(ptid: str) -> str:
    """The number that is unique in the study: the digits after ``_S_``."""
    return str(int(ptid.rpartition("_")[2]))


def is_withdrawn(ptid: str) -> bool:
    """Whether ADNI has withdrawn the subject: 381_S_10### (its data advisory)."""
    return re.fullmatch(r"381_S_10[0-9]{3}", ptid) is not None


def image_id_of(text: str) -> int | None:
    """The number of an image, with or without its leading I."""
    found = _IMAGE_ID.fullmatch(text.strip())
    return int(found.group(1)) if found else None


def date_of(text: str) -> datetime.date | None:
    """A day, as tables, paths and sidecars write it."""
    day = _TIME_OF_DAY.sub("", text.strip())
    for form in _DATES:
        try:
            return datetime.datetime.strptime(day, form).date()
        except ValueError:
            continue
    return None


def number_of(text: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    """A number between ``low`` and ``high``. None for codes of missing values, and for ``<8``, which is no number."""
    number = number_or_none(text.strip())
    return number if number is not None and low <= number <= high else None


def age_of(text: str) -> float | None:
    """An age in years as it is written, or a group such as ``90+``; None for codes of missing values."""
    if number_or_none(text.strip()) is not None:
        return number_of(text, 1, 130)
    try:
        return age_in_years(text)
    except DataError:
        return None


def sex_of(text: str) -> int | None:
    """0 male, 1 female."""
    return _SEXES.get(plain(text))


def modality_of(text: str) -> str:
    """A modality under one name; unknown ones keep their own."""
    return _MODALITIES.get(plain(text), plain(text))
