"""Volumes as bags of their slices, for a network that reads planes and heads that pool studies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.images import Pictures, Study


class Slices(Document):
    """Which slices of a volume are shown."""

    axis: int = Field(0, ge=0, le=2, description="across which axis of D,H,W")
    every: int = Field(1, ge=1, description="one of so many slices, from the middle of the first so many on")

    def places(self, length: int) -> range:
        """Which of so many slices; at least one."""
        return range(min(self.every // 2, length - 1), length, self.every)


class SlicedPictures(Pictures):
    """The slices of studies of volumes, each a study of planes; all images of a study have as many voxels.

    Args:
        base: the volumes.
        slices: which.

    Attributes:
        starts: position of the first slice of each study of ``base``, and after the last one.
        without: why studies of ``base`` have none, by position: they cannot be read, or are no volumes.
    """

    def __init__(self, base: Pictures, slices: Slices) -> None:
        super().__init__()
        self._base, self._slices = base, slices
        self.without: dict[int, DataError] = {}
        self.starts = np.concatenate([[0], np.cumsum([self._count(row) for row in range(len(base))])])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def study(self, position: int) -> Study:
        """The slice at ``position``."""
        row = int(np.searchsorted(self.starts, position, side="right")) - 1
        study = self._base.study(row)
        place = self._slices.places(self._length(study))[position - int(self.starts[row])]
        axis, images = self._slices.axis, {}
        for name, image in study.images.items():
            pixels = np.ascontiguousarray(image.pixels.take(place, axis=1 + axis))
            spacing = tuple(size for each, size in enumerate(image.spacing_mm) if each != axis)
            images[name] = replace(image, pixels=pixels, spacing_mm=spacing, affine=None)
        return replace(study, images=images, name=f"{study.name}, slice {place + 1}")

    def _count(self, row: int) -> int:
        try:
            return len(self._slices.places(self._length(self._base.study(row))))
        except DataError as error:  # no fault as long as no case needs it, such as one that was left out when reading
            self.without[row] = error
            return 0

    def _length(self, study: Study) -> int:
        shapes = {image.pixels.shape[1:] for image in study.images.values()}
        if any(len(shape) != 3 for shape in shapes):
            raise DataError("slices are of volumes, and an image is a plane")
        if len(shapes) > 1:
            raise DataError("slices: the images of a study have different numbers of voxels; bring them to one size")
        return int(next(iter(shapes))[self._slices.axis])


def sliced(cases: Cases, slices: Slices | None) -> Cases:
    """Each case with the slices of its volumes in place of these; what is computed of them is kept with the volumes.

    Args:
        cases: of volumes.
        slices: which; None leaves cases as they are.

    Raises:
        DataError: an image is a plane, or the images of a study differ in size.
    """
    if slices is None:
        return cases
    assert cases.rows is not None
    base, rows = cases.pictures.home(cases.rows)
    kept = base.memo.setdefault("slices", {})
    key = (slices.axis, slices.every)
    if key not in kept:
        kept[key] = SlicedPictures(base, slices)
    pictures: SlicedPictures = kept[key]
    for row in rows.tolist():
        if row in pictures.without:
            raise DataError(f"{cases.name}: {pictures.without[row]}")
    bags = np.arange(len(cases)) if cases.bags is None else cases.bags
    parts = [np.arange(pictures.starts[row], pictures.starts[row + 1]) for row in rows]
    return replace(
        cases,
        images=pictures,
        spacing_mm=None,
        rows=np.concatenate(parts),
        bags=np.repeat(bags, [len(part) for part in parts]),
    )
