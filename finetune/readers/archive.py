"""A MedMNIST ``.npz``: the published one, or one that is marked as not official."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_shards.sample import SPLITS, Sample
from data_shards.sources.medmnist.source import CONTENT, MedMNIST
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.labelled import LabelledImages


def read_archive(path: Path) -> dict[str, LabelledImages]:
    """Read the three splits of an archive.

    The file name says which set it is: ``breastmnist.npz`` and, at another published size, ``breastmnist_64.npz`` must
    have the official MD5; ``breastmnist_anything.npz`` need not and is marked as not official.

    Raises:
        DataError: the name is that of no set, or the file is missing, damaged or not the published one.
    """
    name, _, rest = path.stem.partition("_")
    if name not in CONTENT:
        raise DataError(f"{path}: the name does not begin with that of a MedMNIST set: {', '.join(sorted(CONTENT))}")
    size = int(rest) if rest.isdecimal() else 28
    reason = f"{path.name} does not have the published MD5 of {name}" if rest and not rest.isdecimal() else None
    source = MedMNIST(name, size=size, file=path, unofficial=reason)
    by_split: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for sample in source:
        by_split[sample.split].append(sample)
    card = source.card
    return {
        split: LabelledImages(
            name=card.name,
            images=np.stack([sample.image.pixels for sample in samples]),
            labels=np.stack([sample.label for sample in samples if sample.label is not None]),
            task=Task[card.task],
            classes=card.classes,
            keys=np.array([sample.key for sample in samples]),
            organ=Organ[card.organ],
            modality=Modality[card.modality],
            official=card.official,
            note=card.note,
            source=card.source_checksum,
            spacing_mm=_spacing(samples),
        )
        for split, samples in by_split.items()
        if samples
    }


def _spacing(samples: Sequence[Sample]) -> np.ndarray | None:
    """``(N, A)``; the samples of an archive are alike."""
    spacing_mm = samples[0].image.spacing_mm
    return np.full((len(samples), len(spacing_mm)), spacing_mm, dtype=np.float32) if spacing_mm else None
