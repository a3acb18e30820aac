"""The eighteen sets of MedMNIST v2 (Yang et al., Scientific Data 2023), 2D and 3D, at every published size."""

from __future__ import annotations

import bisect
import itertools
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_shards.sample import SPLITS, Image, Sample, subject_hash
from data_shards.sources.base import Source, register_source
from data_shards.sources.medmnist.archive import fetch, md5_of
from data_shards.sources.medmnist.arrays import UnpackedImages, read_labels
from data_shards.sources.medmnist.sets import CONTENT, make_card, published, sizes_of
from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task

__all__ = ["CONTENT", "MedMNIST", "MedMNISTConfig"]


class MedMNISTConfig(Document):
    """Which sets, and where their archives are."""

    sets: list[str] = Field(default=[], description="names of the sets, such as breastmnist")
    all: bool = Field(default=False, description="every set that is published at this size")
    size: int = Field(default=28, description="pixels along each axis: 28, 64, 128, 224; volumes: 28, 64")
    root: Path | None = Field(default=None, description="folder of the archives, searched before $MEDMNIST_ROOT")
    file: Path | None = Field(default=None, description="the archive of the only set")
    unofficial: str | None = Field(default=None, description="why `file` does not have the published MD5")
    download: bool = Field(default=True, description="download archives that are found nowhere")


@register_source("medmnist")
class MedMNIST(Source):
    """The sets of MedMNIST, from their npz archives.

    The archive is looked for in ``root``, in ``$MEDMNIST_ROOT`` and in ``~/.medmnist``; when it is in none of them it
    is downloaded into the first of these places. Its MD5 must be the one of the package's INFO.

    Images are uint8 ``C,H,W`` with 1 or 3 channels and unknown spacing, or ``C,D,H,W`` with 1 channel and the spacing
    where INFO says it. The axes of volumes keep their order in the archive, whose first one the package itself shows
    as time in its animations; MedMNIST does not say how volumes lie in the body, and D need not be the axis from
    foot to head. Labels are int64 vectors of length 1, of length 14 for the multi-label set. Subjects are named after
    set, split and position, so that an image is the same subject at every size.

    Args:
        name: one of the eighteen names, such as ``breastmnist``.
        size: pixels or voxels along each axis.
        root: folder of the archives.
        file: this archive and no other.
        unofficial: accept a ``file`` whose MD5 is not the official one, and why; the card repeats it.
        download: whether an archive that is found nowhere may be downloaded.

    Raises:
        DataError: the set is unknown, the archive is missing, damaged or another one; the message names the file.
    """

    Config = MedMNISTConfig
    duplicates: Literal["refuse", "drop", "allow"] = "allow"

    def __init__(
        self,
        name: str,
        *,
        size: int = 28,
        root: Path | None = None,
        file: Path | None = None,
        unofficial: str | None = None,
        download: bool = True,
    ) -> None:
        self._archive = published(name, size)
        if unofficial is not None and (file is None or not unofficial.strip()):
            raise DataError(f"{name}: unofficial= gives the reason why file= is not the published archive; needs both")
        self._file = file if file is not None else fetch(self._archive, _places(root), download=download)
        md5 = md5_of(self._file, name)
        if unofficial is None and md5 != self._archive.md5:
            raise DataError(
                f"{self._file}: MD5 is {md5}, expected {self._archive.md5} for {self._archive.stem}: the file is "
                f"truncated, damaged or not the published archive"
            )
        self.card = make_card(self._archive, md5=md5, unofficial=unofficial)
        self._labels = read_labels(self._file, self._archive)
        self._ends = list(itertools.accumulate(self._archive.samples[split] for split in SPLITS))
        self._unpacked: UnpackedImages | None = None

    @property
    def archive(self) -> Path:
        """The npz file that is read."""
        return self._file

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        """Unpacks first: the copies in other processes read the files of this one, which must outlive them."""
        self._images()
        return self.__dict__.copy()

    def sample(self, position: int) -> Sample:
        """See :meth:`~data_shards.sources.base.Source.sample`; the first call unpacks the archive."""
        if not 0 <= position < len(self):
            raise IndexError(f"{self.card.name} has {len(self)} samples; asked for {position}")
        number = bisect.bisect_right(self._ends, position)
        split = SPLITS[number]
        row = position - (self._ends[number] - self._archive.samples[split])
        image = self._images().read(split, row)
        pixels = image[None] if self._archive.channels == 1 else np.ascontiguousarray(np.moveaxis(image, -1, 0))
        key = f"{split}-{row:06d}"
        organ, modality = CONTENT[self._archive.name]
        return Sample(
            key=key,
            images={"image": Image(pixels, modality, self._archive.spacing_mm)},
            organ=organ,
            subject=subject_hash(key, salt=self._archive.name),
            split=split,
            label=self._labels[split][row].astype(np.int64),
            task=Task[self.card.task],
        )

    def _images(self) -> UnpackedImages:
        if self._unpacked is None:
            self._unpacked = UnpackedImages(self._file, self._archive)
        return self._unpacked

    @classmethod
    def from_config(cls, config: Any) -> list[Source]:
        """One source for each set; ``all`` means those that are published at the size.

        Raises:
            ConfigError: no set is named, or a file for several.
            DataError: a line for every set that cannot be had, so that they are put right in one go.
        """
        names = config.sets
        if config.all:
            from medmnist import INFO

            names = [name for name in CONTENT if config.size in sizes_of(INFO[name])]
        if bool(config.sets) == config.all or not names:
            raise ConfigError("medmnist: name the sets, or say all=true for every set at one of the published sizes")
        if config.file is not None and len(names) != 1:
            raise ConfigError(f"medmnist: a file is the archive of one set, and {len(names)} sets are named")
        options = config.model_dump(exclude={"sets", "all"})
        sources: list[Source] = []
        wrong: list[str] = []
        for name in names:
            try:
                sources.append(cls(name, **options))
            except DataError as error:
                wrong.append(str(error))
        if wrong:
            raise DataError("\n".join(wrong))
        return sources


def _places(root: Path | None) -> list[Path]:
    named = [root, os.environ.get("MEDMNIST_ROOT"), Path.home() / ".medmnist"]
    return [Path(place) for place in named if place]
