"""Brains with labels of their slices and of the whole, their subjects in three splits, and a generator of the first.

Hippocampus: cropped MR volumes with masks, cut into coronal slices. Phantoms: whole heads, drawn; axial slices.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.studies.runs import DATA, hippocampus, shards
from data_shards.prepare.document import Intensity, Preparation
from data_shards.reading.reader import ShardedDataset
from data_shards.sources.phantoms import Phantoms
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.readers import read_cases
from pretrain.brainfuse.generator import GeneratorConfig
from pretrain.brainfuse.training import GeneratorRun, train_generator

SPLITS = ("train", "val", "test")
CLASSES = 10
TEST, VAL = 67, 30
"""Subjects of the hippocampus volumes; those for testing are the ones that other studies hold out."""
_LEAST_VOXELS = 10
"""A slice shows the hippocampus if so many voxels of it do."""
_PHANTOMS = 300


@dataclass(frozen=True)
class Part:
    """The subjects of one split.

    Attributes:
        volumes: uint8 ``N,1,S,H,W``, slices first.
        position_NS: in which tenth a slice lies, -1 where it lies in none.
        large_N: whether the number of the whole is above the median of the training subjects.
        subjects: a name of each.
    """

    volumes: np.ndarray
    position_NS: np.ndarray
    large_N: np.ndarray
    subjects: np.ndarray

    @property
    def sha256(self) -> str:
        """Over the names of the subjects."""
        return sha256("\n".join(sorted(map(str, self.subjects))).encode()).hexdigest()


@dataclass(frozen=True)
class Brains:
    """A set of brains.

    Attributes:
        name: of the set.
        parts: by split.
        whole: what is told of the whole, in words.
        shards: what the generator learns from; their split train has the training subjects and no others.
        axis: across which axis of these volumes slices lie.
        gaps: of the generator.
        steps: of its training.
    """

    name: str
    parts: Mapping[str, Part]
    whole: str
    shards: Path
    axis: int
    gaps: tuple[int, ...]
    steps: int

    def slices(self, split: str) -> tuple[Cases, np.ndarray]:
        """The slices that lie in one of the tenths as cases, and the place of each among all slices of the split."""
        part = self.parts[split]
        place = np.flatnonzero(part.position_NS.ravel() >= 0)
        count = part.position_NS.shape[1]
        images = part.volumes.transpose(0, 2, 1, 3, 4).reshape(-1, 1, *part.volumes.shape[3:])[place]
        keys = np.array([f"{part.subjects[each // count]}-{each % count:02d}" for each in place])
        cases = Cases(
            f"{self.name} slices", images, part.position_NS.ravel()[place][:, None], Task.multiclass,
            {number: str(number) for number in range(CLASSES)}, keys, Organ.brain, Modality.mri,
            subjects=part.subjects[place // count],
        )  # fmt: skip
        return cases, place

    def wholes(self, split: str) -> Cases:
        """The volumes as cases."""
        part = self.parts[split]
        return Cases(
            f"{self.name} volumes", part.volumes, part.large_N.astype(np.int64)[:, None], Task.binary,
            {0: "small", 1: "large"}, part.subjects, Organ.brain, Modality.mri, subjects=part.subjects,
        )  # fmt: skip


def real(folder: Path) -> Brains:
    """Hippocampus: the tenths along it, and whether its volume is above the median, by masks no network sees."""
    place, held = hippocampus(folder, TEST + VAL)
    split_of = {path.name: "test" if number < TEST else "val" for number, path in enumerate(held)}
    table = folder / "hippocampus-splits.csv"
    files = sorted((DATA / "hippocampus" / "images").glob("*.nii.gz"))
    with table.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "label", "split"))
        rows.writerows((path.name, "none", split_of.get(path.name, "train")) for path in files)
    size_of = {}
    for path in files:
        mask = nib.load(DATA / "hippocampus" / "labels" / path.name)
        size_of[path.name] = float((np.asarray(mask.dataobj) > 0).sum() * np.prod(mask.header.get_zooms()))
    images = _arrays(table, "images", Intensity(percentile=(1, 99)))
    masks = _arrays(table, "labels", Intensity(window=(1, 2)))
    median = float(np.median([size_of[name] for name in images["train"][1]]))
    parts = {}
    for split in SPLITS:
        (volumes, names), (shown, others) = images[split], masks[split]
        assert names.tolist() == others.tolist(), "images and masks are of the same subjects in the same order"
        seen_NS = (shown[:, 0] > 0).sum(axis=(2, 3)) >= _LEAST_VOXELS
        large_N = np.array([size_of[name] > median for name in names])
        parts[split] = Part(volumes, tenths(seen_NS), large_N, names)
    return Brains("hippocampus", parts, "its volume is above the median", place, 1, (1, 2, 3), 1500)


def _arrays(table: Path, kind: str, intensity: Intensity) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Volumes ``N,1,S,H,W`` with the coronal slices first and the files they are of, by split."""
    preparation = Preparation(spacing_mm=1.0, size=(32, 48, 32), intensity=intensity)
    splits = read_cases(
        DATA / "hippocampus" / kind, csv=table, prepare=preparation, organ=Organ.brain, modality=Modality.mri,
        label="none", show_paths=True,
    )  # fmt: skip
    found = {}
    for split in SPLITS:
        cases = splits[split]
        pixels = [next(iter(cases.studies_of(case)[0].images.values())).pixels for case in range(len(cases))]
        found[split] = np.ascontiguousarray(np.stack(pixels).transpose(0, 1, 3, 2, 4)), cases.keys
    return found


def tenths(seen_NS: np.ndarray) -> np.ndarray:
    """In which tenth each slice lies from the first to the last that shows the structure, -1 outside.

    Args:
        seen_NS: bool, one slice of each subject at least is true.
    """
    found_NS = np.full(seen_NS.shape, -1)
    for row, seen_S in zip(found_NS, seen_NS, strict=True):
        first, last = np.flatnonzero(seen_S)[[0, -1]]
        row[first : last + 1] = CLASSES * np.arange(last - first + 1) // (last - first + 1)
    return found_NS


def drawn(folder: Path) -> Brains:
    """Phantoms of the head: the tenths of the field of view, and whether the age is above the median.

    Age widens the ventricles and the sulci. The first and the last slice of 32 are left out, so that tenths are whole.
    """
    source = Phantoms("phantom-brain-mri", size=32, subjects=_PHANTOMS, images_per_subject=1)
    place = shards(folder / "shards", source)
    parts, ages = {}, {}
    for split in SPLITS:
        dataset = ShardedDataset(place, split)
        records = dataset.read(np.arange(len(dataset)))
        position_S = np.concatenate([[-1], np.repeat(np.arange(CLASSES), 3), [-1]])
        position_NS = np.tile(position_S, (len(dataset), 1))
        ages[split] = records.attributes["age_years"]
        large_N = ages[split] > np.median(ages["train"])
        subjects = np.array([name.decode() for name in records.subject_B])
        parts[split] = Part(np.ascontiguousarray(records.stacked), position_NS, large_N, subjects)
    return Brains("phantoms", parts, "the age is above the median", place, 0, (1, 2), 600)


def generator_of(folder: Path, brains: Brains) -> Path:
    """The bundle of the generator, trained on the training subjects unless it is there."""
    dataset = ShardedDataset(brains.shards, "train")
    learned_from = dataset.read(np.arange(len(dataset))).stacked
    same = _digests(np.moveaxis(learned_from, 2 + brains.axis, 2)) == _digests(brains.parts["train"].volumes)
    assert same, "the generator learns from the training subjects and from no others"
    run = GeneratorRun(
        out=folder / brains.name / "generator", shards=brains.shards, axis=brains.axis, gaps=brains.gaps,
        steps=brains.steps, generator=GeneratorConfig(width=32, depth=2), threads=1,
    )  # fmt: skip
    if not (run.out / "bundle" / "config.json").is_file():
        train_generator(run, resume=run.out.exists())
    return run.out / "bundle"


def _digests(volumes: np.ndarray) -> list[str]:
    return sorted(sha256(np.ascontiguousarray(volume).tobytes()).hexdigest() for volume in volumes)
