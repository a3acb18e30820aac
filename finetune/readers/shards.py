"""The labelled samples of a folder of shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.card import DatasetCard
from data_shards.format.manifest import Manifest, read_manifest
from data_shards.intensity import BYTES, Rule, check_names, rule_of
from data_shards.prepare.document import Intensity, Preparation
from data_shards.prepare.prepared import prepare
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import MASK, Image
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases, check_disjoint, contiguous
from finetune.images import JoinedPictures, Pictures, ReadPictures, Study
from finetune.readers.arrays import array_recipe
from finetune.readers.recipe import PERCENTILES, Depth, Recipe
from finetune.readers.survey import Channelled, Progress, Survey
from finetune.targets import TARGETS


@dataclass(frozen=True)
class ShardSplit:
    """The studies of one split, some of whose images may be missing.

    Attributes:
        datasets: by image name.
        places_NM: the position in each dataset of each study, -1 where it has no such image; names in their order.
        label_NL: labels; -1 or NaN where there is none, no column when no sample has one.
        keys: that name nobody.
        subjects: hashed.
        organs: vocabulary ids.
    """

    datasets: dict[str, ShardedDataset]
    places_NM: np.ndarray
    label_NL: np.ndarray
    keys: np.ndarray
    subjects: np.ndarray
    organs: np.ndarray

    @classmethod
    def of(cls, folder: Path, split: str, manifest: Manifest, *, show_paths: bool) -> ShardSplit:
        """Open a split and join the images of its studies.

        Raises:
            DataError: the folder is damaged, or has masks alone.
        """
        names = sorted(set(manifest.splits[split].images) - {MASK})
        if not names:
            raise DataError(f"{folder}: the studies of split {split} have no image")
        datasets = {name: ShardedDataset(folder, split, image=name) for name in names}
        described = {name: one.describe(np.arange(len(one))) for name, one in datasets.items()}
        row_of: dict[bytes, int] = {}
        first: list[tuple[str, int]] = []
        for name in sorted(names, key=lambda name: -len(datasets[name])):
            for place, key in enumerate(described[name].key_B.tolist()):
                if row_of.setdefault(key, len(first)) == len(first):
                    first.append((name, place))
        places_NM = np.full((len(first), len(names)), -1, np.int64)
        for column, name in enumerate(names):
            rows = [row_of[key] for key in described[name].key_B.tolist()]
            places_NM[rows, column] = np.arange(len(rows))
        # The keys of other people's tars are names of files, which may be names of people.
        named = show_paths or not manifest.adopted
        return cls(
            datasets,
            places_NM,
            np.stack([described[name].label_BL[place] for name, place in first]),
            np.array(
                [
                    described[name].key_B[place].decode() if named else f"{split} sample {row}"
                    for row, (name, place) in enumerate(first)
                ]
            ),
            np.array([described[name].subject_B[place].decode() for name, place in first]),
            np.array([described[name].organ_B[place] for name, place in first]),
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def labelled(self) -> np.ndarray:
        """The rows that have a label."""
        if not self.label_NL.shape[1]:
            return np.empty(0, np.int64)
        known = np.isfinite(self.label_NL) if self.label_NL.dtype.kind == "f" else self.label_NL >= 0
        return np.flatnonzero(known.all(axis=1))

    @property
    def alike(self) -> bool:
        """Whether each study is one 8-bit image of one shape."""
        if len(self.datasets) > 1:
            return False
        (dataset,) = self.datasets.values()
        return dataset.image_shape is not None and _is_8_bits(dataset.layout.dtype) is True

    def study(self, row: int) -> Study:
        """A study as it is stored."""
        images = {}
        for column, (name, dataset) in enumerate(self.datasets.items()):
            place = int(self.places_NM[row, column])
            if place >= 0:
                records = dataset.read(np.array([place]))
                pixels = records.images[0]
                spacing = tuple(records.spacing_mm_BA[0, : pixels.ndim - 1].tolist())
                known = spacing if np.isfinite(spacing).all() else ()
                images[name] = Image(pixels, Modality(int(records.modality_B[0])), known)
        return Study(images, Organ(int(self.organs[row])), str(self.keys[row]))


def read_shards(
    folder: Path,
    *,
    show_paths: bool = False,
    labelled: bool = True,
    intensity: Mapping[str, Rule] | None = None,
    progress: Progress | None = None,
) -> dict[str, Cases]:
    """Read every split that has labelled samples; those without a label are left out.

    Images of 8 bits and one shape stay in memory. Where they differ in shape, or a study has several, each is read when
    it is needed. Values that a rule is given for are kept as they are; others that are deeper go to 8 bits by
    percentiles of each image.

    Args:
        folder: with the manifest.
        show_paths: keep the keys of adopted tars, which are names of files; only where these identify nobody.
        labelled: False reads all samples, and no label.
        intensity: rules by image name, see :func:`~data_shards.intensity.rule_of`, in place of those of the manifest.
        progress: is told how many images are read, where they are not of one shape.

    Raises:
        DataError: the folder is damaged, no sample has a label, or images of one name do not fit together.
    """
    manifest = read_manifest(folder)
    card = manifest.card
    opened = {split: ShardSplit.of(folder, split, manifest, show_paths=show_paths) for split in manifest.splits}
    rows = {split: part.labelled if labelled else np.arange(len(part)) for split, part in opened.items()}
    parts = {split: part for split, part in opened.items() if len(rows[split])}
    if not parts:
        raise DataError(f"{folder}: no sample has a label")
    told = {}
    for split, part in parts.items():
        labels, classes = shard_labels(part.label_NL[rows[split]], card, folder) if labelled else (None, {})
        told[split] = {
            "name": card.name,
            "labels": labels,
            "task": Task[card.task],
            "classes": classes,
            "keys": part.keys[rows[split]],
            "organ": Organ[card.organ],
            "modality": Modality[card.modality],
            "subjects": part.subjects[rows[split]],
            "official": card.official,
            "note": card.note,
            "source": {**card.source_checksum, "manifest_sha256": manifest.digest},
            "licence": card.licence,
        }
    kept = _kept(folder, parts, intensity or manifest.intensity)
    if not kept and all(part.alike for part in parts.values()):
        splits = _stacked(parts, rows, told, card)
    else:
        splits = _lazy(folder, parts, rows, told, card, kept, progress)
    check_disjoint(splits)
    return splits


def _stacked(
    parts: dict[str, ShardSplit], rows: dict[str, np.ndarray], told: dict[str, dict[str, Any]], card: DatasetCard
) -> dict[str, Cases]:
    records = {}
    for split, part in parts.items():
        (dataset,) = part.datasets.values()
        records[split] = dataset.read(part.places_NM[rows[split], 0])
    images = [record.stacked for record in records.values()]
    recipe = array_recipe(images, [record.spacing_mm_BA for record in records.values()], data="shards", card=card)
    return {
        split: Cases(
            **told[split],
            images=record.stacked,
            spacing_mm=record.spacing_mm_BA,
            recipe=_with_classes(recipe, told[split]["classes"]).model_dump(mode="json"),
        )
        for split, record in records.items()
    }


def _lazy(
    folder: Path,
    parts: dict[str, ShardSplit],
    rows: dict[str, np.ndarray],
    told: dict[str, dict[str, Any]],
    card: DatasetCard,
    kept: dict[str, Rule],
    progress: Progress | None,
) -> dict[str, Cases]:
    try:
        depths = _depths(parts, kept)
        to_8_bits = {
            name: PERCENTILES if depth == "measured" and name not in kept else Intensity()
            for name, depth in depths.items()
        }
        pictures: Pictures = JoinedPictures(
            [
                ReadPictures(len(rows[split]), _reader(part, rows[split], to_8_bits, kept))
                for split, part in parts.items()
            ]
        )
        names = [f"sample {key}" for split in parts for key in told[split]["keys"]]
        survey = Survey.of(pictures, names, progress=progress)
        channels = survey.channels("auto", pictures)
        if survey.differ(channels):
            pictures = Channelled(pictures, channels)
        recipe = Recipe(
            data="shards",
            images=survey.recipes(channels, to_8_bits, depths, kept),
            organ=card.organ,
            modality=card.modality,
            task=card.task,
        )
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    splits, start = {}, 0
    for split in parts:
        end = start + len(rows[split])
        record = _with_classes(recipe, told[split]["classes"]).model_dump(mode="json")
        splits[split] = Cases(**told[split], images=pictures, rows=np.arange(start, end), recipe=record)
        start = end
    return splits


def _kept(folder: Path, parts: Mapping[str, ShardSplit], rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules of the images whose values are kept as they are, by name.

    Raises:
        DataError: there is no such image.
    """
    names = sorted({name for part in parts.values() for name in part.datasets})
    try:
        check_names(rules, names)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    found = {name: rule_of(rules, name) for name in names}
    return {name: rule for name, rule in found.items() if rule is not None and rule != BYTES}


def _reader(
    part: ShardSplit, rows: np.ndarray, to_8_bits: dict[str, Intensity], kept: dict[str, Rule]
) -> Callable[[int], Study]:
    def read(at: int) -> Study:
        study = part.study(int(rows[at]))
        return replace(study, images=prepare(dict(study.images), Preparation(), to_8_bits), rules=kept)

    return read


def _depths(parts: dict[str, ShardSplit], kept: Mapping[str, Rule]) -> dict[str, Depth]:
    """How deep the images of each name are; any of those that are kept and differ.

    Raises:
        DataError: some have 8 bits and others more.
    """
    found: dict[str, set[bool | None]] = {}
    for part in parts.values():
        for name, dataset in part.datasets.items():
            found.setdefault(name, set()).add(_is_8_bits(dataset.layout.dtype))
    for name, kinds in found.items():
        if name not in kept and (None in kinds or len(kinds) > 1):
            raise DataError(
                f"the values of {name} are of different depths; prepare.intensity of shards build brings all to 8 bits"
            )
    mixed = {name for name, kinds in found.items() if None in kinds or len(kinds) > 1}
    told: dict[str, Depth] = {name: "8 bits" if True in kinds else "measured" for name, kinds in found.items()}
    return told | dict.fromkeys(mixed, "any")


def _is_8_bits(dtype: str | None) -> bool | None:
    """Whether all images are uint8; None where they differ in dtype."""
    return None if dtype is None else bool(np.dtype(dtype) == np.uint8)


def shard_labels(label_NL: np.ndarray, card: DatasetCard, folder: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Labels as cases have them, and the names of what they stand for.

    Raises:
        DataError: the task has no labels to learn, or a label is none of the classes.
    """
    task = Task[card.task]
    if task.name not in TARGETS:
        raise DataError(f"{folder}: a {task.name} task has no labels to learn")
    if task is Task.regression:
        count = label_NL.shape[1]
        names = {number: f"value {number + 1}" if count > 1 else "value" for number in range(count)}
        return label_NL.astype(np.float64), dict(card.classes) if len(card.classes) == count else names
    try:
        labels, classes = contiguous(label_NL, {0: "no", 1: "yes"} if task is Task.multilabel else card.classes)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    return labels, dict(card.classes) if task is Task.multilabel else classes


def _with_classes(recipe: Recipe, classes: dict[int, str]) -> Recipe:
    return recipe.model_copy(update={"classes": dict(classes)})
