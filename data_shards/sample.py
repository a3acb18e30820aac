"""One study as every source yields it and the shard writer takes it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Dimensionality, Modality, Organ, Task

SPLITS = ("train", "val", "test")

# The image of this name holds class ids of voxels, on the grid of the others; it is a target, not a view of the body.
MASK = "mask"


@dataclass(frozen=True)
class Image:
    """Pixels and how they were made.

    Attributes:
        pixels: array ``C,H,W`` or ``C,D,H,W`` in its native dtype.
        modality: how the image was made.
        spacing_mm: distance between neighbouring samples along each spatial axis, in the order of the axes; empty
            when it is not known.
        measured: bool ``H,W`` or ``D,H,W``, False where nothing was measured, as outside the view of a scanner; such
            voxels are left out of statistics and windows. None when all were. Not stored.
        notes: what its owner has to know of the file it was read from, in words that name nobody. Not stored.
        affine: one row and column more than axes: from indices to where they lie. Of a volume that was read, to mm that
            grow to right, anterior and superior of the patient; None when it is not known. Not stored.
    """

    pixels: np.ndarray
    modality: Modality = Modality.unknown
    spacing_mm: tuple[float, ...] = ()
    measured: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    affine: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (3, 4) or 0 in self.pixels.shape:
            raise DataError(f"an image has axes C,H,W or C,D,H,W, none of them empty; found shape {self.pixels.shape}")
        if self.pixels.dtype.kind not in "uif":
            raise DataError(f"an image holds integers or floats, found dtype {self.pixels.dtype}")
        if self.spacing_mm and len(self.spacing_mm) != self.pixels.ndim - 1:
            raise DataError(f"spacing {self.spacing_mm} does not fit an image of shape {self.pixels.shape}")
        measured = self.measured
        if measured is not None and (measured.shape != self.pixels.shape[1:] or measured.dtype.kind != "b"):
            raise DataError(f"what was measured of an image of shape {self.pixels.shape} is bool of its spatial shape")
        if self.affine is not None and self.affine.shape != (self.pixels.ndim, self.pixels.ndim):
            raise DataError(f"an affine of shape {self.affine.shape} for an image of shape {self.pixels.shape}")
        object.__setattr__(self, "spacing_mm", tuple(float(distance) for distance in self.spacing_mm))

    @property
    def values(self) -> np.ndarray:
        """All pixels, or ``C,N``: those that were measured."""
        return self.pixels if self.measured is None else self.pixels[:, self.measured]

    @property
    def dimensionality(self) -> Dimensionality:
        """Planar for ``C,H,W``, volumetric for ``C,D,H,W``."""
        return Dimensionality.planar if self.pixels.ndim == 3 else Dimensionality.volumetric


@dataclass(frozen=True)
class Sample:
    """One study of one subject.

    Attributes:
        key: ASCII, unique in its dataset; the basename of the members in the shard, so no dot and no slash.
        images: the images of the study by name; a study with one image calls it ``image``. One called ``mask`` holds
            uint8 class ids on the grid of the others.
        organ: the body part shown.
        subject: a salted hash (see :func:`subject_hash`), never a raw identifier.
        split: ``train``, ``val`` or ``test``.
        label: vector of numbers, or None; kept as int64 or float64.
        task: how the label is to be read.
        attributes: further numbers of the study by name, such as ``age_years``. Numbers only, so that no free text
            can pass.
    """

    key: str
    images: dict[str, Image]
    organ: Organ
    subject: str
    split: str
    label: np.ndarray | None = None
    task: Task = Task.unknown
    attributes: Mapping[str, float] = field(default_factory=dict)

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
        if MASK in self.images:
            self._check_mask(self.images[MASK].pixels)
        for name, value in self.attributes.items():
            if not name.isascii() or not name.isidentifier():
                raise DataError(f"sample {self.key}: attribute name {name!r} is not an ASCII identifier")
            if not math.isfinite(value):
                raise DataError(f"sample {self.key}: attribute {name} is {value}; leave out what is not known")
        object.__setattr__(self, "attributes", {name: float(value) for name, value in self.attributes.items()})
        if self.label is not None:
            if self.label.ndim != 1 or not self.label.size or self.label.dtype.kind not in "biuf":
                raise DataError(f"sample {self.key}: a label is a vector of numbers, found {self.label!r}")
            dtype = np.float64 if self.label.dtype.kind == "f" else np.int64
            object.__setattr__(self, "label", self.label.astype(dtype))

    @property
    def image(self) -> Image:
        """The only image of a study that has one; its mask does not count."""
        images = [image for name, image in self.images.items() if name != MASK]
        if len(images) != 1:
            raise DataError(f"sample {self.key} has {len(self.images)} images: {', '.join(self.images)}")
        return images[0]

    def _check_mask(self, mask: np.ndarray) -> None:
        if mask.dtype != np.uint8 or mask.shape[0] != 1:
            raise DataError(f"sample {self.key}: a mask is uint8 with one channel, found {mask.dtype} {mask.shape}")
        if len(self.images) == 1:
            raise DataError(f"sample {self.key}: a mask without an image")
        for name, image in self.images.items():
            if image.pixels.shape[1:] != mask.shape[1:]:
                raise DataError(
                    f"sample {self.key}: mask {mask.shape[1:]} and {name} {image.pixels.shape[1:]} differ in grid"
                )


def subject_hash(identifier: str, salt: str) -> str:
    """A name for a subject from which the identifier cannot be read back without the salt: 16 hexadecimal digits."""
    return hashlib.blake2b(identifier.encode(), key=salt.encode()[:64], digest_size=8).hexdigest()
