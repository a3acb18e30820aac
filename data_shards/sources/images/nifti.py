"""NIfTI-1 and NIfTI-2 volumes in one file, ``.nii`` or ``.nii.gz`` (https://nifti.nimh.nih.gov)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.background import NotFinite, without_infinities
from data_shards.sources.images.dtypes import plain, refuse_overflow
from data_shards.sources.images.nifti_header import WHAT, Header, read_header
from data_shards.sources.images.orientation import canonical_grid, to_canonical
from data_shards.support.errors import DataError
from data_shards.support.limits import BoundedReader, check_size, is_gzip, open_regular
from data_shards.vocabulary import Modality

Frames = Literal["refuse", "first", "all"]

TRAILING = "bytes follow the last value that the header describes: they are not read"


def header_of(path: Path) -> Header:
    """What the header says.

    Raises:
        DataError: the file has no usable one.
    """
    with open_regular(path) as file:
        return read_header(BoundedReader(file, WHAT, inflate=is_gzip(file)))


def frame_count(path: Path) -> int:
    """How many volumes the file holds, by its header.

    Raises:
        DataError: it has no usable header.
    """
    return header_of(path).frames


def read_nifti(
    path: Path,
    *,
    frame: int = 0,
    frames: Frames = "refuse",
    modality: Modality = Modality.unknown,
    not_finite: NotFinite = "refuse",
    placed_by: Header | None = None,
) -> Image:
    """One volume, ``C,D,H,W`` in the orientation of :mod:`~data_shards.sources.images.orientation`.

    - A file of one slice gives an image ``C,H,W``.
    - The sform places the voxels, else the qform. When neither is set the orientation is unknown: D, H and W are the
      axes ``k,j,i`` as stored.
    - ``scl_slope`` and ``scl_inter`` are applied. Without them integers stay what they are; when both are integers
      and the results fit, they are int16; everything else is float32.
    - RGB voxels give three channels, RGBA also: the alpha channel is dropped.

    Args:
        path: the file.
        frame: which volume of several.
        frames: ``refuse`` refuses a file of several volumes.
        modality: how the image was made.
        not_finite: what is done with NaN and infinity, see :mod:`~data_shards.sources.images.background`.
        placed_by: says in place of the file's own header where the voxels lie; of the same axes ``i,j,k``.

    Raises:
        DataError: the file is damaged, cut short, too large, of a kind that is no image (complex, vectors), or holds
            NaN or infinity that are refused; or ``placed_by`` is of another shape.
    """
    with open_regular(path) as file:
        reader = BoundedReader(file, WHAT, inflate=is_gzip(file))
        header = read_header(reader)
        if header.frames > 1 and frames == "refuse":
            raise DataError(f"{WHAT} has {header.frames} frames; frames: first or frames: all says which to take")
        if not 0 <= frame < header.frames:
            raise DataError(f"{WHAT} has {header.frames} frames, no frame {frame}")
        count = math.prod(header.shape) * max(header.colours, 1)
        bytes_of_frame = count * header.dtype.itemsize
        reader.skip(header.start + frame * bytes_of_frame)
        stored = reader.read_array(count, header.dtype)
        reader.skip((header.frames - frame - 1) * bytes_of_frame)
        notes = header.notes if reader.at_end() else (*header.notes, TRAILING)
    # The first axis of the file is the fastest; colours are faster still.
    voxels = stored.reshape(*header.shape[::-1], max(header.colours, 1)).transpose(2, 1, 0, 3)
    voxels = _scaled(voxels[..., :3], header)
    affine: np.ndarray | None = None
    place = header if placed_by is None else placed_by
    if place.shape != header.shape:
        raise DataError(f"{WHAT} has {header.shape} voxels, the header that is to place them {place.shape}")
    source: tuple[int, ...] = (2, 1, 0)
    if place.affine is not None:
        voxels, _, source = to_canonical(voxels, place.affine)
        affine = None if place.planar else canonical_grid(place.shape, place.affine).affine
    else:
        voxels = voxels.transpose(2, 1, 0, 3)
    spacing_mm = tuple(place.spacing_mm[axis] for axis in source)
    pixels = np.moveaxis(voxels, -1, 0)
    if place.planar:
        slices = source.index(2)
        pixels = pixels.take(0, axis=1 + slices)
        spacing_mm = tuple(step for axis, step in enumerate(spacing_mm) if axis != slices)
    known = spacing_mm if np.isfinite(spacing_mm).all() else ()
    return without_infinities(Image(plain(pixels, WHAT), modality, known, notes=notes, affine=affine), WHAT, not_finite)


def _scaled(stored: np.ndarray, header: Header) -> np.ndarray:
    """Apply slope and intercept slice by slice, in float64, so that no second volume of float64 is needed."""
    slope, inter = header.slope, header.inter
    if (slope, inter) == (1.0, 0.0):
        return stored
    dtype: np.dtype = np.dtype(np.float32)
    if stored.dtype.kind in "iu" and slope.is_integer() and inter.is_integer():
        ends = [int(stored.min()) * int(slope) + int(inter), int(stored.max()) * int(slope) + int(inter)]
        if min(ends) >= -(1 << 15) and max(ends) < 1 << 15:
            dtype = np.dtype(np.int16)
    check_size(stored.shape, dtype, WHAT)
    result = np.empty(stored.shape, dtype, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(stored.shape[2]):
            result[:, :, k] = stored[:, :, k].astype(np.float64) * slope + inter
            if dtype.kind == "f":
                refuse_overflow(stored[:, :, k], result[:, :, k], WHAT)
    return result
