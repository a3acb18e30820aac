"""One study as every source yields it and the shard writer takes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Dimensionality, Modality, Organ, Task

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Image:
    """Pixels and how they were made.

    Attributes:
        pixels: array ``C,H,W`` or ``C,D,H,W`` in its native dtype.
        modality: how the image was made.
        spacing_mm: distance between neighbouring samples along each spatial axis, in the order of the axes; empty
            when it is not known.
    """

    pixels: np.ndarray
    modality: Modality = Modality.unknown
    spacing_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (3, 4) or 0 in self.pixels.shape:
            raise DataError(f"an image has axes C,H,W or C,D,H,W, none of them empty; found shape {self.pixels.shape}")
        if self.pixels.dtype.kind not in "uif":
            raise DataError(f"an image holds integers or floats, found dtype {self.pixels.dtype}")
        if self.spacing_mm and len(self.spacing_mm) != self.pixels.ndim - 1:
            raise DataError(f"spacing {self.spacing_mm} does not fit an image of shape {self.pixels.shape}")

    @property
    def dimensionality(self) -> Dimensionality:
        """Planar for ``C,H,W``, volumetric for ``C,D,H,W``."""
        return Dimensionality.planar if self.pixels.ndim == 3 else Dimensionality.volumetric


@dataclass(frozen=True)
class Sample:
    """One study of one subject.

    Attributes:
        key: ASCII, unique in its dataset; the basename of the members in the shard, so no dot and no slash.
        images: the images of the study by name; a study with one image calls it ``image``.
        organ: the body part shown.
        subject: a salted hash (see :func:`subject_hash`), never a raw identifier.
        split: ``train``, ``val`` or ``test``.
        label: vector of numbers, or None; kept as int64 or float64.
        task: how the label is to be read.
    """

    key: str
    images: dict[str, Image]
    organ: Organ
    subject: str
    split: str
    label: np.ndarray | None = None
    task: Task = Task.unknown

    def __post_init__(self) -> None:
        if not self.key.isascii() or not self.key.isprintable() or not self.key or set(self.key) & set("./\\ "):
            raise DataError(f"sample key {self.key!r}: expected printable ASCII without dot, slash or space")
        if not self.subject.isascii() or not self.subject:
            raise DataError(f"sample {self.key}: subject {self.subject!r} is not a hash in ASCII")
        if self.split not in SPLITS:
            raise DataError(f"sample {self.key}: split {self.split!r} is not one of {', '.join(SPLITS)}")
        if not self.images:
            raise DataError(f"sample {self.key}: no image")
        for name in self.images:
            if not name.isascii() or not name.isidentifier():
                raise DataError(f"sample {self.key}: image name {name!r} is not an ASCII identifier")
        if self.label is not None:
            if self.label.ndim != 1 or not self.label.size or self.label.dtype.kind not in "biuf":
                raise DataError(f"sample {self.key}: a label is a vector of numbers, found {self.label!r}")
            dtype = np.float64 if self.label.dtype.kind == "f" else np.int64
            object.__setattr__(self, "label", self.label.astype(dtype))

    @property
    def image(self) -> Image:
        """The only image of a study that has one."""
        if len(self.images) != 1:
            raise DataError(f"sample {self.key} has {len(self.images)} images: {', '.join(self.images)}")
        return next(iter(self.images.values()))


def subject_hash(identifier: str, salt: str) -> str:
    """A name for a subject from which the identifier cannot be read back without the salt: 16 hexadecimal digits."""
    return hashlib.blake2b(identifier.encode(), key=salt.encode()[:64], digest_size=8).hexdigest()
