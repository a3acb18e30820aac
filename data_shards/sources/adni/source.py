"""The Alzheimer's Disease Neuroimaging Initiative as LONI IDA exports it (https://adni.loni.usc.edu)."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards.card import DatasetCard
from data_shards.sample import Sample, subject_hash
from data_shards.sources.adni.export import Export, read_export
from data_shards.sources.adni.facts import CLASSES, LeftOut, diagnosis_of
from data_shards.sources.adni.options import Options
from data_shards.sources.adni.study import DAYS_IN_MONTH, DAYS_IN_YEAR
from data_shards.sources.adni.visits import Scan, Visit
from data_shards.sources.adni.volume import read_volume
from data_shards.sources.base import Source, register_source
from data_shards.sources.splits import split_by_subject
from data_shards.sources.tables.privacy import kept_age
from data_shards.sources.tables.roles import plain
from data_shards.support.errors import DataError
from data_shards.support.salt import read_salt
from data_shards.vocabulary import Modality, Organ, Task

_TASKS = {
    "diagnosis": (Task.multiclass, CLASSES),
    "age": (Task.regression, {}),
    "sex": (Task.binary, {0: "male", 1: "female"}),
    "none": (Task.self_supervised, {}),
}


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


@register_source("adni")
class ADNI(Source):
    """Visits of ADNI subjects, with MRI and PET, from an export of LONI IDA.

    A sample is one visit of one subject. Its images are the T1-weighted ``mri`` and PET by tracer, ``pet_fdg``,
    ``pet_av45``, ``pet_pib``, ``pet_fbb``, ``pet_tau``, or ``pet`` where no tracer is named; one of each kind. Of
    several the first of these rules decides that tells them apart: the user's ``words``; processed or original, as
    ``prefer`` says; the first acquisition before a repeated one; more steps of processing; a revised version before
    what it revises; the smallest image identifier.

    The label is the diagnosis at the visit, the age, the sex, or nothing. Attributes, each where it is known:
    ``age_years``, ``sex`` (0 male, 1 female), ``month`` since the baseline, ``mmse``, ``apoe4``, and what the option
    ``attributes`` asks for. What is not in the dataset is in ``skipped``, with the reason and the hashed subject.

    Keys and subjects are salted hashes, samples are sorted by key, and the split is decided by the subject. Messages
    call a sample ``visit 17``, an image ``file 17`` and a row ``row 17`` of its table.

    Args:
        config: the options.
        salt: secret for the hashes of keys and subjects.

    Raises:
        DataError: folder or tables cannot be used, or no visit is left.
    """

    Config = Options

    def __init__(self, config: Options, *, salt: str) -> None:
        self._config = config
        export = read_export(config)
        left_out = export.left_out
        self._items: list[Item] = []
        for visit in export.visits:
            item, reason = item_of(visit, export, config, salt)
            if item is not None:
                self._items.append(item)
            else:
                left_out += [LeftOut(scan.entry.item, reason, visit.ptid) for scan in visit.scans]
        self._items.sort(key=lambda item: item.key)
        self.warnings = export.warnings
        self.skipped = [entry.skipped(salt) for entry in left_out]
        if not self._items:
            first = f"; {self.skipped[0].item}: {self.skipped[0].reason}" if self.skipped else ""
            raise DataError(f"{config.root}: no visit with a usable image{first}")
        self.card = self._make_card(salt)

    @classmethod
    def from_config(cls, config: Any) -> list[Source]:
        """One source; the salt is read from its file."""
        return [cls(config, salt=read_salt(config.salt_file))]

    def __len__(self) -> int:
        return len(self._items)

    def name_of(self, position: int) -> str:
        """``visit 17``; with ``show_paths`` also where its first image lies."""
        name = f"visit {position + 1}"
        return f"{name} ({self._items[position].visit.scans[0].entry.item})" if self._config.show_paths else name

    def sample(self, position: int) -> Sample:
        """The visit at ``position``, all its images read.

        Raises:
            DataError: an image cannot be read.
        """
        item = self._items[position]
        images = {}
        for scan in item.visit.scans:
            try:
                images[scan.name] = read_volume(
                    [self._config.root / path for path in scan.entry.files],
                    _modality(scan),
                    dicom=scan.entry.dicom,
                    ptid=item.visit.ptid,
                )
            except DataError as error:
                raise DataError(f"{self.name_of(position)}: {scan.name}: {error}") from None
        return Sample(
            key=item.key,
            images=images,
            organ=Organ.brain,
            subject=item.subject,
            split=split_by_subject(item.subject, self._config.shares),
            label=item.label,
            task=_TASKS[self._config.label][0],
            attributes=item.attributes,
        )

    def origin(self, position: int) -> dict[str, str]:
        """Key, subject, PTID, visit and the first file of each image: for a table that its owner keeps private."""
        item = self._items[position]
        paths = {f"path_{scan.name}": scan.entry.files[0] for scan in item.visit.scans}
        return {"key": item.key, "subject": item.subject, "ptid": item.visit.ptid, "visit": item.visit.name, **paths}

    def _make_card(self, salt: str) -> DatasetCard:
        task, classes = _TASKS[self._config.label]
        scans = [scan for item in self._items for scan in item.visit.scans]
        pet = sum(_modality(scan) is Modality.pet for scan in scans)
        subjects = len({item.subject for item in self._items})
        digest = hashlib.blake2b(key=salt.encode()[:64], digest_size=16)  # keyed: no identifier is found by trying
        for scan in scans:
            digest.update("\n".join((*scan.entry.files, "")).encode("utf-8", "surrogateescape"))
        return DatasetCard(
            name=self._config.name,
            title="Alzheimer's Disease Neuroimaging Initiative",
            organ=Organ.brain.name,
            modality=(Modality.pet if 2 * pet > len(scans) else Modality.mri).name,
            dimensionality="volumetric",
            task=task.name,
            classes=classes,
            licence="ADNI data use agreement; may not be redistributed",
            homepage="https://adni.loni.usc.edu",
            source_version=f"{len(self)} visits of {subjects} subjects",
            source_checksum={"blake2b of the listing": digest.hexdigest()},
            official=False,
            note="an export made by its user; which images it has was not compared with ADNI",
            split_rule=self._config.shares.rule,
        )


def _modality(scan: Scan) -> Modality:
    return Modality.mri if scan.name == "mri" else Modality.pet
