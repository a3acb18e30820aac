"""Masks: class ids, and whether their voxels are those of their image.

A mask is drawn voxel by voxel on its image. Its header may say something else: a tool that saves an array without the
affine of the image writes another one, and turning each by its own header would move the drawing. So the two headers
are compared before either is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from data_shards.sample import MASK, Image
from data_shards.sources.images.channels import is_grey
from data_shards.sources.images.nifti import header_of
from data_shards.sources.images.nifti_header import Header
from data_shards.sources.images.orientation import Grid, canonical_grid
from data_shards.sources.images.study import Place
from data_shards.support.errors import DataError

MaskHeader = Literal["refuse", "image", "mask"]

# Headers hold float32 and are rounded by every tool; a mask that lies a tenth of a voxel off is on the same voxels.
TOLERANCE_VOXELS = 0.1

_OTHER_HEADER = "its header places it elsewhere than that of {name}: it lies on the voxels of {name} one by one"
_NO_HEADER = "it does not say where its voxels lie: it lies on the voxels of {name} one by one"
_UNCOMPARED = "it does not say where its voxels lie: its axes are taken for those of {name} after turning"
_AMBIGUOUS = (
    "mask: its header places it on no image, and which it was drawn on is not known, {names}: "
    "they differ in grid or in the order of voxels; save the mask with the affine of its image"
)
_ONE_ONLY = "it is on the voxels of {name} and not on those of {others}"


@dataclass(frozen=True)
class Placing:
    """Which header says where the voxels of an image lie, where it is not the image's own.

    Attributes:
        headers: by image name.
        notes: what the owner of the mask has to know.
    """

    headers: Mapping[str, Header] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def placing_of(root: Path, places: Mapping[str, Place], rule: MaskHeader) -> Placing:
    """Compare the header of the mask of a study with those of its images.

    Args:
        root: of the archive.
        places: the images of the study by name, with the mask.
        rule: which header counts where they disagree: that of the ``image``, that of the ``mask``, or none.

    Raises:
        DataError: the mask lies elsewhere than every image, and the rule is ``refuse`` or images on which it may have
            been drawn differ among themselves; or a header cannot be read.
    """
    mask = places.get(MASK)
    if mask is None or len(places) == 1:
        return Placing()
    headers = {name: header_of(root / place.path) for name, place in places.items() if place.kind == "nifti"}
    grids = {name: _grid(place, headers.get(name)) for name, place in places.items()}
    header, own = headers.pop(MASK, None), grids.pop(MASK)
    placed = {name: grid for name, grid in grids.items() if grid is not None}
    if own is None and not placed:
        return Placing()
    distances = {} if own is None else {each: own.voxels_from(grid) for each, grid in placed.items()}
    near = [each for each, distance in distances.items() if distance <= TOLERANCE_VOXELS]
    if near:
        far = ", ".join(each for each in distances if each not in near)
        return Placing({}, (_ONE_ONLY.format(name=near[0], others=far),) if far else ())

    drawn_on = [] if header is None else _of_its_size(header, headers, placed)
    if len(drawn_on) > 1 and not _alike([headers.get(each) for each in drawn_on]):
        raise DataError(_AMBIGUOUS.format(names=" or ".join(drawn_on)))
    name = next(iter(drawn_on or placed or grids))
    other = headers.get(name)
    alike = header is not None and other is not None and header.shape == other.shape
    if own is None or name not in placed:
        note = _NO_HEADER if alike else _UNCOMPARED
        return Placing({MASK: other} if alike and other is not None else {}, (note.format(name=name),))
    if not alike or header is None or other is None:
        return _refused(own, placed[name], distances[name], name, option="")
    if rule == "refuse":
        option = "; mask_header: image lays it on the voxels of the image one by one, mask_header: mask turns the image"
        return _refused(own, placed[name], distances[name], name, option=option)
    notes = (_OTHER_HEADER.format(name=" and ".join(drawn_on)),)
    return Placing({MASK: other} if rule == "image" else dict.fromkeys(drawn_on, header), notes)


def _of_its_size(mask: Header, headers: Mapping[str, Header], placed: Mapping[str, Grid]) -> list[str]:
    """Names of the images on which the mask may have been drawn: they have its voxels, in whatever order of axes."""
    shapes = {name: grid.shape for name, grid in placed.items()} | {name: one.shape for name, one in headers.items()}
    return [name for name, shape in shapes.items() if sorted(shape) == sorted(mask.shape)]


def _alike(headers: Sequence[Header | None]) -> bool:
    """Whether files store their voxels in one order at one place, so that it is the same to lie on any of them."""
    first = headers[0]
    return first is not None and all(one is not None and _same_voxels(first, one) for one in headers[1:])


def _same_voxels(one: Header, other: Header) -> bool:
    if one.affine is None or other.affine is None:
        return one.affine is other.affine and one.shape == other.shape
    return Grid(one.shape, one.affine).voxels_from(Grid(other.shape, other.affine)) <= TOLERANCE_VOXELS


def as_mask(image: Image) -> Image:
    """Class ids as uint8, from whatever dtype the drawing tool wrote; equal channels are one.

    Raises:
        DataError: a value is no class id.
    """
    values = image.pixels[:1] if is_grey(image.pixels) else image.pixels
    if len(values) != 1:
        raise DataError(f"a mask has one channel of class ids; this one has {len(values)} channels of colours")
    with np.errstate(invalid="ignore"):
        ids = values.astype(np.uint8)
    if not np.array_equal(ids, values):
        raise DataError("a mask has one channel of whole numbers from 0 to 255")
    return replace(image, pixels=np.ascontiguousarray(ids))


def _grid(place: Place, header: Header | None) -> Grid | None:
    """Where the voxels lie; None where the file does not say it."""
    if place.kind == "dicom" and place.series is not None:
        from data_shards.sources.images.dicom.placing import grid_of

        return grid_of(place.series)
    if header is None or header.affine is None:
        return None
    return canonical_grid(header.shape, header.affine)


def _refused(own: Grid, grid: Grid, distance: float, name: str, *, option: str) -> Placing:
    if own.shape != grid.shape:
        apart = f"{_by(own.shape)} voxels, that of {name} {_by(grid.shape)}"
    else:
        apart = f"its voxels up to {distance:.3g} voxels away from those of {name}"
    raise DataError(f"mask: header and image disagree, by its affine it has {apart} (depth, height, width){option}")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
