"""The labelled samples of a folder of shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_shards.card import DatasetCard
from data_shards.format.manifest import read_manifest
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.labelled import LabelledImages, check_disjoint, contiguous
from finetune.metrics import CLASSIFICATION


def read_shards(folder: Path, *, show_paths: bool = False) -> dict[str, LabelledImages]:
    """Read every split that has labelled samples; those without a label are left out.

    Args:
        folder: with the manifest.
        show_paths: keep the keys of adopted tars, which are names of files; only where these identify nobody.

    Raises:
        DataError: the folder is damaged, its images differ in size, or no sample has a label.
    """
    splits = {}
    manifest = read_manifest(folder)
    for split in manifest.splits:
        dataset = ShardedDataset(folder, split)
        if dataset.image_shape is None:
            raise DataError(f"{folder}: the images of split {split} differ in size; classification needs one size")
        card = dataset.card
        description = dataset.describe(np.arange(len(dataset)))
        if not description.label_BL.shape[1]:
            continue
        labelled = np.flatnonzero((description.label_BL >= 0).all(axis=1))
        if not len(labelled):
            continue
        records = dataset.read(labelled)
        labels, classes = _classes(records.label_BL, card, folder)
        # The keys of other people's tars are names of files, which may be names of people.
        named = show_paths or not manifest.adopted
        keys = records.key_B.astype(str) if named else [f"{split} sample {place}" for place in labelled]
        splits[split] = LabelledImages(
            name=card.name,
            images=records.stacked,
            labels=labels,
            task=Task[card.task],
            classes=classes,
            keys=np.array(keys),
            organ=Organ[card.organ],
            modality=Modality[card.modality],
            subjects=records.subject_B.astype(str),
            official=card.official,
            note=card.note,
            source={**card.source_checksum, "manifest_sha256": dataset.manifest_digest},
            spacing_mm=records.spacing_mm_BA,
        )
    if not splits:
        raise DataError(f"{folder}: no sample has a label")
    check_disjoint(splits)
    return splits


def _classes(labels_BL: np.ndarray, card: DatasetCard, folder: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Class indices from 0 and the names of the classes; labels of several columns stay what they are."""
    task = Task[card.task]
    if task not in CLASSIFICATION:
        raise DataError(f"{folder}: a {task.name} task has no labels to classify")
    try:
        labels, classes = contiguous(labels_BL, {0: "no", 1: "yes"} if task is Task.multilabel else card.classes)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    return labels, dict(card.classes) if task is Task.multilabel else classes
