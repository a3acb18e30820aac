"""ADNIMERGE: one row for each examination of a subject."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_shards.sources.adni.facts import (
    Code,
    Filling,
    LeftOut,
    age_of,
    date_of,
    diagnosis_of,
    fill,
    is_withdrawn,
    number_of,
    ptid_of,
    rid_of,
    sex_of,
    visit_code,
)
from data_shards.sources.adni.table import MEASURES, STUDY, Table
from data_shards.sources.tables.roles import plain

DAYS_IN_YEAR = 365.25
DAYS_IN_MONTH = DAYS_IN_YEAR / 12
_NEEDED = ("visit", "first_age")


@dataclass(frozen=True)
class Exam:
    """One examination; nothing of it is shown but numbers.

    Attributes:
        code: of its visit.
        date: when it was.
        joined: phase in which the subject joined, ``ADNI1``, ``ADNIGO``, ``ADNI2``, ``ADNI3`` ...
        diagnosis: see :data:`~data_shards.sources.adni.facts.CLASSES`.
        age_years: on that day.
        sex: 0 male, 1 female.
        measures: further numbers, by column.
    """

    code: Code
    date: datetime.date | None = None
    joined: str = ""
    diagnosis: int | None = None
    age_years: float | None = None
    sex: int | None = None
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def month(self) -> int | None:
        """Months since the baseline, by the code."""
        return self.code.month_for(self.joined)


@dataclass
class Study:
    """The examinations of each subject in order of time, by PTID or, in a table without PTIDs, by RID."""

    exams: dict[str, list[Exam]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def of(self, ptid: str) -> list[Exam]:
        """The examinations of a subject."""
        return self.exams.get(ptid) or self.exams.get(rid_of(ptid), [])

    def find(self, ptid: str, code: Code, date: datetime.date | None, days: int) -> Exam | None:
        """The examination of a visit: by its code, else the nearest by date, within ``days`` days.

        At a tie the earlier one is taken.
        """
        exams = self.of(ptid)
        for exam in exams:
            month = code.month_for(exam.joined)
            if month is not None and month == exam.month:
                return exam
        dated = [(abs((exam.date - date).days), exam) for exam in exams if exam.date and date]
        gap, nearest = min(dated, key=lambda pair: pair[0], default=(0, None))
        return nearest if gap <= days else None

    def baseline(self, ptid: str) -> Exam | None:
        """The examination at month 0."""
        return next((exam for exam in self.of(ptid) if exam.month == 0), None)


def is_study(table: Table) -> bool:
    """Whether the columns are those of ADNIMERGE."""
    return not missing_columns(table)


def missing_columns(table: Table) -> list[str]:
    """What a study table must have and this one has not."""
    found = table.columns(STUDY)
    missing = [STUDY[role].names[0].upper() for role in _NEEDED if role not in found]
    return missing + [
        " or ".join(STUDY[role].names[0].upper() for role in either)
        for either in (("ptid", "rid"), ("diagnosis", "first_diagnosis"))
        if found.keys().isdisjoint(either)
    ]


def read_study(table: Table, measures: Sequence[str], filling: Filling) -> Study:
    """Read a study table.

    Args:
        table: with the columns that :func:`missing_columns` asks for.
        measures: columns of further numbers to keep.
        filling: what is done where the diagnosis is missing.
    """
    study = Study()
    names = [plain(name) for name in table.header]
    places = {f"measure {name}": names.index(plain(name)) for name in measures if plain(name) in names}
    for item, cells in table.cells(table.columns(STUDY) | places):
        if cells is None:
            study.left_out.append(LeftOut(item, "more or fewer cells than the header", lost=True))
            continue
        ptid = ptid_of(cells.get("ptid", ""))
        subject = ptid or cells.get("rid", "")
        if not ptid and not subject.isdecimal():
            study.left_out.append(LeftOut(item, "no subject identifier that can be read"))
        elif ptid and is_withdrawn(ptid):
            study.left_out.append(LeftOut(item, "its subject was withdrawn by ADNI (381_S_10###)", ptid))
        else:
            study.exams.setdefault(ptid or str(int(subject)), []).append(_exam(cells, measures))
    for subject, exams in study.exams.items():
        study.exams[subject] = _in_time(exams, filling)
    return study


def _exam(cells: Mapping[str, str], measures: Sequence[str]) -> Exam:
    code = visit_code(cells["visit"])
    diagnosis = diagnosis_of(cells.get("diagnosis", ""))
    if diagnosis is None and code.month == 0 and not cells.get("diagnosis"):
        diagnosis = diagnosis_of(cells.get("first_diagnosis", ""))
    first_age, years = age_of(cells["first_age"]), number_of(cells.get("years", ""), -2, 100)
    numbers = {name: number_of(cells.get(f"measure {name}", ""), *MEASURES[name]) for name in measures}
    if years is None and code.month is not None:
        years = code.month / 12
    return Exam(
        code=code,
        date=date_of(cells.get("date", "")),
        joined=plain(cells.get("joined", "")).upper(),
        diagnosis=diagnosis,
        age_years=None if first_age is None or years is None else first_age + years,
        sex=sex_of(cells.get("sex", "")),
        measures={name: number for name, number in numbers.items() if number is not None},
    )


def _in_time(exams: Sequence[Exam], filling: Filling) -> list[Exam]:
    """The examinations of one subject in order of time; what has no date is placed by its month."""
    starts = [
        exam.date.toordinal() - exam.month * DAYS_IN_MONTH for exam in exams if exam.date and exam.month is not None
    ]
    start = min(starts, default=0.0)

    def day(exam: Exam) -> float:
        return exam.date.toordinal() if exam.date else start + (exam.month or 0) * DAYS_IN_MONTH

    ordered = sorted(exams, key=day)
    diagnoses = fill([exam.diagnosis for exam in ordered], [day(exam) for exam in ordered], filling)
    return [replace(exam, diagnosis=diagnosis) for exam, diagnosis in zip(ordered, diagnoses, strict=True)]
