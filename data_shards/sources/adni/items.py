"""From visits to what a sample carries beside its pixels."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import numpy as np

from data_shards.sample import subject_hash
from data_shards.sources.adni.diagnosis import diagnosis_of
from data_shards.sources.adni.export import Export
from data_shards.sources.adni.options import Options
from data_shards.sources.adni.study import DAYS_IN_MONTH, DAYS_IN_YEAR
from data_shards.sources.adni.visits import Visit
from data_shards.sources.privacy import kept_age
from data_shards.sources.tables.roles import plain


@dataclass(frozen=True)
class Item:
    """One sample to be.

    Attributes:
        visit: its images; private.
        key: salted hash of subject and visit.
        subject: salted hash of the subject.
        label: int64 class, float64 number, or None.
        attributes: numbers by name.
    """

    visit: Visit = field(repr=False)
    key: str
    subject: str
    label: np.ndarray | None
    attributes: dict[str, float]


def item_of(visit: Visit, export: Export, options: Options, salt: str) -> tuple[Item | None, str]:
    """The item of a visit, or the reason why there is none."""
    month = _month(visit, export)
    attributes = _attributes(visit, month, export)
    label: np.ndarray | None = None
    if options.label == "diagnosis":
        diagnosis = _diagnosis(visit, month)
        if diagnosis is None:
            return None, "no diagnosis at its visit"
        label = np.array([diagnosis])
    elif options.label == "age":
        if "age_years" not in attributes:
            return None, "no age at its visit"
        label = np.array([attributes["age_years"]], np.float64)
    elif options.label == "sex":
        if "sex" not in attributes:
            return None, "the sex of its subject is not known"
        label = np.array([int(attributes["sex"])])
    key = subject_hash(f"key {options.name}/{visit.ptid}/{visit.name}", salt)
    return Item(visit, key, subject_hash(visit.ptid, salt), label, attributes), ""


def _diagnosis(visit: Visit, month: int | None) -> int | None:
    """That of the examination; the group of a collection says only what a subject was at the baseline."""
    if visit.exam is not None:
        return visit.exam.diagnosis
    if month != 0:
        return None
    groups = [diagnosis_of(scan.facts.group) for scan in visit.scans]
    return next((group for group in groups if group is not None), None)


def _date(visit: Visit) -> datetime.date | None:
    return min((scan.facts.date for scan in visit.scans if scan.facts.date), default=None)


def _month(visit: Visit, export: Export) -> int | None:
    """By the code of the visit, else by its date."""
    if visit.month is not None:
        return visit.month
    baseline, date = export.study.baseline(visit.ptid), _date(visit)
    if baseline is None or baseline.date is None or date is None:
        return None
    return round((date - baseline.date).days / DAYS_IN_MONTH)


def _age(visit: Visit, export: Export) -> float | None:
    """At the visit: of its examination, else of the baseline and the date, else of the collection."""
    exam = visit.exam
    if exam is not None and exam.age_years is not None:
        return exam.age_years
    baseline, date = export.study.baseline(visit.ptid), _date(visit)
    if baseline is not None and baseline.age_years is not None and baseline.date and date:
        return baseline.age_years + (date - baseline.date).days / DAYS_IN_YEAR
    return next((scan.facts.age_years for scan in visit.scans if scan.facts.age_years is not None), None)


def _attributes(visit: Visit, month: int | None, export: Export) -> dict[str, float]:
    exams = [visit.exam] if visit.exam else export.study.of(visit.ptid)[:1]
    sexes = [exam.sex for exam in exams] + [scan.facts.sex for scan in visit.scans]
    age, sex = _age(visit, export), next((sex for sex in sexes if sex is not None), None)
    attributes = {
        "age_years": None if age is None else round(kept_age(age), 2),
        "sex": sex,
        "month": month,
    }
    measures = visit.exam.measures if visit.exam else {}
    attributes |= {plain(name): value for name, value in measures.items()}
    return {name: float(value) for name, value in attributes.items() if value is not None}
