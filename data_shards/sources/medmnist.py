"""The twelve 2D sets of MedMNIST v2 at 28 x 28 pixels (Yang et al., Scientific Data 2023)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.sample import SPLITS, Image, Sample, subject_hash
from data_shards.sources.base import DatasetCard, register_source
from data_shards.sources.medmnist_file import fetch, md5_of, read_arrays
from data_shards.support.errors import DataError, nearest
from data_shards.vocabulary import Modality, Organ, Task

# What the images show and how they were made; the package's INFO says it only in prose.
CONTENT: dict[str, tuple[Organ, Modality]] = {
    "pathmnist": (Organ.colon, Modality.histology),
    "chestmnist": (Organ.chest, Modality.xray),
    "dermamnist": (Organ.skin, Modality.dermatoscopy),
    "octmnist": (Organ.retina, Modality.oct),
    "pneumoniamnist": (Organ.chest, Modality.xray),
    "retinamnist": (Organ.retina, Modality.fundus),
    "breastmnist": (Organ.breast, Modality.ultrasound),
    "bloodmnist": (Organ.blood, Modality.microscopy),
    "tissuemnist": (Organ.kidney, Modality.microscopy),
    "organamnist": (Organ.abdomen, Modality.ct),
    "organcmnist": (Organ.abdomen, Modality.ct),
    "organsmnist": (Organ.abdomen, Modality.ct),
}

_TASKS = {
    "binary-class": Task.binary,
    "multi-class": Task.multiclass,
    "multi-label, binary-class": Task.multilabel,
    "ordinal-regression": Task.ordinal,
}

_SPLIT_RULE = (
    "the split of the published archive; MedMNIST publishes no patient identifiers, so every image counts as its own "
    "subject and a patient on both sides of a split cannot be found"
)


@register_source("medmnist")
class MedMNIST:
    """One MedMNIST 2D set, read from its npz.

    The archive is looked for in ``root``, in ``$MEDMNIST_ROOT`` and in ``~/.medmnist``; when it is in none of them
    the ``medmnist`` package downloads it into the first of these places. Its MD5 must be the one of the package's
    INFO. Images are ``C,H,W`` uint8 with 1 or 3 channels and unknown spacing, labels are int64 vectors of length 1, or
    of length 14 for the multi-label set.

    Args:
        name: one of the twelve names, such as ``breastmnist``.
        root: folder of the archives.
        file: this archive and no other.
        unofficial: accept a ``file`` whose MD5 is not the official one, and why; the card repeats it.
        download: whether an archive that is found nowhere may be downloaded.

    Raises:
        DataError: the set is unknown, the archive is missing, damaged or another one; the message names the file.
    """

    def __init__(
        self,
        name: str,
        *,
        root: Path | None = None,
        file: Path | None = None,
        unofficial: str | None = None,
        download: bool = True,
    ) -> None:
        self._info = _info_of(name)
        if unofficial is not None and (file is None or not unofficial.strip()):
            raise DataError(f"{name}: unofficial= gives the reason why file= is not the published archive; needs both")
        self._file = file if file is not None else fetch(name, self._info, _places(root), download=download)
        md5 = md5_of(self._file, name)
        if unofficial is None and md5 != self._info["MD5"]:
            raise DataError(
                f"{self._file}: MD5 is {md5}, expected {self._info['MD5']} for {name}: the file is truncated, damaged "
                f"or not the published archive"
            )
        self.card = make_card(name, self._info, md5=md5, unofficial=unofficial)

    def __len__(self) -> int:
        return sum(self._info["n_samples"].values())

    def __iter__(self) -> Iterator[Sample]:
        organ, modality = CONTENT[self.card.name]
        task = Task[self.card.task]
        for split in SPLITS:
            images_NHWC, labels_NL = read_arrays(self._file, self._info, split)
            images_NCHW = images_NHWC.transpose(0, 3, 1, 2)
            for position, (image_CHW, label_L) in enumerate(zip(images_NCHW, labels_NL, strict=True)):
                key = f"{split}-{position:06d}"
                yield Sample(
                    key=key,
                    images={"image": Image(np.ascontiguousarray(image_CHW), modality)},
                    organ=organ,
                    subject=subject_hash(key, salt=self.card.name),
                    split=split,
                    label=label_L.astype(np.int64),
                    task=task,
                )


def make_card(name: str, info: Mapping[str, Any], *, md5: str, unofficial: str | None = None) -> DatasetCard:
    """The card of a set, from the package's INFO entry and our table of organs and modalities."""
    organ, modality = CONTENT[name]
    return DatasetCard(
        name=name,
        title=f"{info['python_class']} 28x28",
        organ=organ.name,
        modality=modality.name,
        dimensionality="planar",
        task=_TASKS[info["task"]].name,
        classes={int(value): text for value, text in info["label"].items()},
        licence=info["license"],
        homepage="https://medmnist.com",
        source_version=f"MedMNIST {_package_version()}, {info['url']}",
        source_checksum={"md5": md5},
        official=unofficial is None,
        note=f"not the official archive: {unofficial}" if unofficial else "",
        split_rule=_SPLIT_RULE,
    )


def _info_of(name: str) -> dict[str, Any]:
    if name not in CONTENT:
        raise DataError(f"unknown MedMNIST 2D set {name!r}{nearest(name, CONTENT)}")
    from medmnist import INFO  # imports torchvision: only when a set is asked for

    return INFO[name]


def _package_version() -> str:
    import medmnist

    return medmnist.__version__


def _places(root: Path | None) -> list[Path]:
    named = [root, os.environ.get("MEDMNIST_ROOT"), Path.home() / ".medmnist"]
    return [Path(place) for place in named if place]
