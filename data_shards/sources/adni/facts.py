"""What an export says of one image or visit, and how its values are written: identifiers, dates, codes, diagnoses."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from data_shards.sample import subject_hash
from data_shards.sources.base import Skipped
from data_shards.sources.tables.cells import number_or_none
from data_shards.sources.tables.privacy import age_in_years
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
_BASELINES = {"sc", "scmri", "bl", "screening", "screeningmri", "baseline", "v01", "v02", "v03", "m0", "m00", "m000"}
_ADNI2_MONTHS = {"v04": 3, "v05": 6} | {
    f"v{year}{half}": 12 * year + 6 * (half - 1) for year in range(1, 6) for half in (1, 2)
}
_MONTH = re.compile(r"(?:adni1go|adni1|adnigo|adni)?(?:month|m)([0-9]{1,3})(?:mri)?")
_ADNI2_MONTH = re.compile(r"adni2month([0-9]{1,3})(?:mri)?newpt")
_YEAR = re.compile(r"y([0-9]{1,2})|(adni[234])year([0-9]{1,2})(?:visit)?")
_SPOKEN_BASELINE = re.compile(r"adni(?:1go|go|[1234])?(?:screening|baseline)(?:mri)?(?:newpt)?")
CLASSES = {0: "CN", 1: "MCI", 2: "Dementia"}
Filling = Literal["drop", "forward", "backward", "nearest"]
# SMC is a memory concern without impairment; EMCI and LMCI are stages of MCI.
_SPELLINGS = {
    **dict.fromkeys(("cn", "nl", "normal", "control", "cognitivelynormal", "smc"), 0),
    **dict.fromkeys(("mci", "emci", "lmci", "earlymci", "latemci", "mildcognitiveimpairment"), 1),
    **dict.fromkeys(("dementia", "ad", "alzheimers", "alzheimersdisease", "alzheimerdisease"), 2),
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


@dataclass(frozen=True)
class LeftOut:
    """Like :class:`~data_shards.sources.base.Skipped`, with the identifier of the subject where it is known.

    ``lost`` is true for what is damaged, also of what tables and XML files say of images.
    """

    item: str
    reason: str
    ptid: str = field(default="", repr=False)
    lost: bool = False

    def skipped(self, salt: str) -> Skipped:
        """The same with a salted hash in place of the identifier."""
        return Skipped(self.item, self.reason, subject_hash(self.ptid, salt) if self.ptid else "", self.lost)


@dataclass(frozen=True)
class Code:
    """One visit code, as months since the baseline.

    ADNI1 and ADNIGO write ``sc``, ``bl``, ``m06``. ADNI2 counts its own visits (``v11`` is its first year) and ADNI3
    its years (``y2``), from the day on which the phase began for a subject: for those who had joined before, such a
    count is no month since their baseline. Newer tables number visits 1, 2, 3, which says nothing of time.

    Attributes:
        text: letters and digits of the code; empty for no code.
        month: months since the baseline, or None.
        phase: ``month`` holds only for subjects who joined in this phase; empty: for all.
    """

    text: str = ""
    month: int | None = None
    phase: str = ""

    def month_for(self, joined: str) -> int | None:
        """The month for a subject who joined in the phase ``joined``; None when the code says none for that subject."""
        return self.month if not self.phase or self.phase == joined else None


def visit_code(written: str) -> Code:
    """Read a code or its long form, such as ``ADNI2 Year 1 Visit``."""
    text = plain(written)
    if text in _BASELINES or _SPOKEN_BASELINE.fullmatch(text):
        return Code(text, 0)
    if text in _ADNI2_MONTHS:
        return Code(text, _ADNI2_MONTHS[text], "ADNI2")
    if found := _MONTH.fullmatch(text):
        return Code(text, int(found.group(1)))
    if found := _ADNI2_MONTH.fullmatch(text):
        return Code(text, int(found.group(1)), "ADNI2")
    if found := _YEAR.fullmatch(text):
        short, phase, year = found.groups()
        return Code(text, 12 * int(short or year), phase.upper() if phase else "ADNI3")
    return Code(text)


def diagnosis_of(text: str) -> int | None:
    """The class of a diagnosis; of a change such as ``MCI to Dementia``, what it changed to."""
    return _SPELLINGS.get(plain(text.casefold().rpartition(" to ")[2]))


def fill(diagnoses: Sequence[int | None], days: Sequence[float], how: Filling) -> list[int | None]:
    """Fill in what is missing at visits of one subject.

    Args:
        diagnoses: in order of time.
        days: when the visits were, on any scale; rising.
        how: ``drop`` leaves it missing; ``forward`` takes the visit before, ``backward`` the visit after, ``nearest``
            the nearer of both and at a tie the one before.
    """
    result = list(diagnoses)
    for place, diagnosis in enumerate(diagnoses):
        if diagnosis is not None or how == "drop":
            continue
        before = next((other for other in range(place - 1, -1, -1) if diagnoses[other] is not None), None)
        after = next((other for other in range(place + 1, len(diagnoses)) if diagnoses[other] is not None), None)
        allowed = {"forward": (before,), "backward": (after,), "nearest": (before, after)}[how]
        near = [other for other in allowed if other is not None]
        if near:
            result[place] = diagnoses[min(near, key=lambda other: abs(days[other] - days[place]))]
    return result
