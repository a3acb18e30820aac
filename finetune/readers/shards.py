"""The labelled samples of a folder of shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_shards.format.manifest import read_manifest
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.labelled import LabelledImages, check_disjoint


def read_shards(folder: Path) -> dict[str, LabelledImages]:
    """Read every split that has labelled samples; those without a label are left out.

    Raises:
        DataError: the folder is damaged, its images differ in size, or no sample has a label.
    """
    splits = {}
    for split in read_manifest(folder).splits:
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
        splits[split] = LabelledImages(
            name=card.name,
            images=records.stacked,
            labels=records.label_BL.astype(np.int64),
            task=Task[card.task],
            classes=card.classes,
            keys=records.key_B.astype(str),
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
