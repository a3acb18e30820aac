"""A MedMNIST ``.npz``: the published one, or one that is marked as not official."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_shards.sample import SPLITS, Sample
from data_shards.sources.medmnist.source import CONTENT, MedMNIST
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.readers.arrays import array_recipe


def open_archive(path: Path) -> MedMNIST:
    """The archive as a source.

    Raises:
        DataError: it is no npz, the name is that of no set, or the file is missing, damaged or not the published one.
    """
    if path.suffix != ".npz":
        raise DataError(f"{path}: a single file that is no npz; images are read from the folder that holds them")
    name, _, rest = path.stem.partition("_")
    if name not in CONTENT:
        raise DataError(f"{path}: the name does not begin with that of a MedMNIST set: {', '.join(sorted(CONTENT))}")
    size = int(rest) if rest.isdecimal() else 28
    reason = f"{path.name} does not have the published MD5 of {name}" if rest and not rest.isdecimal() else None
    return MedMNIST(name, size=size, file=path, unofficial=reason)


def read_archive(path: Path, *, labelled: bool = True) -> dict[str, Cases]:
    """Read the three splits of an archive.

    The file name says which set it is: ``breastmnist.npz`` and, at another published size, ``breastmnist_64.npz`` must
    have the official MD5; ``breastmnist_anything.npz`` need not and is marked as not official.

    Args:
        path: the archive.
        labelled: False leaves the labels out.

    Raises:
        DataError: as :func:`open_archive`.
    """
    source = open_archive(path)
    by_split: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for sample in source:
        by_split[sample.split].append(sample)
    card = source.card
    splits = {}
    for split, samples in by_split.items():
        if not samples:
            continue
        images, spacing_mm = np.stack([sample.image.pixels for sample in samples]), _spacing(samples)
        splits[split] = Cases(
            name=card.name,
            images=images,
            labels=np.stack([sample.label for sample in samples if sample.label is not None]) if labelled else None,
            task=Task[card.task],
            classes=card.classes,
            keys=np.array([sample.key for sample in samples]),
            organ=Organ[card.organ],
            modality=Modality[card.modality],
            official=card.official,
            note=card.note,
            source=card.source_checksum,
            spacing_mm=spacing_mm,
            recipe=array_recipe([images], [spacing_mm], data="archive", card=card).model_dump(mode="json"),
            licence=card.licence,
        )
    return splits


def _spacing(samples: Sequence[Sample]) -> np.ndarray | None:
    """``(N, A)``; the samples of an archive are alike."""
    spacing_mm = samples[0].image.spacing_mm
    return np.full((len(samples), len(spacing_mm)), spacing_mm, dtype=np.float32) if spacing_mm else None
