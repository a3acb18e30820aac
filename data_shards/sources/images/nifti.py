"""NIfTI-1 and NIfTI-2 volumes in one file, ``.nii`` or ``.nii.gz`` (https://nifti.nimh.nih.gov)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.dtypes import plain
from data_shards.sources.images.orientation import check_spacing, to_canonical
from data_shards.support.errors import DataError
from data_shards.support.limits import BoundedReader, check_size, is_gzip, open_regular
from data_shards.vocabulary import Modality

Frames = Literal["refuse", "first", "all"]

_WHAT = "the NIfTI volume"
_HEADER_BYTES = {348: b"n+1\0", 540: b"n+2\0"}
_MAGIC_AT = {348: 344, 540: 4}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units; what says nothing is taken for mm, as all tools do
# Header extensions often hold whole DICOM headers. They are passed over; this is how long they may be.
_EXTENSION_BYTES = 64 << 20
_MAX_FRAMES = 32767  # what NIfTI-1 can count; NIfTI-2 could claim more samples than fit in memory
_COLOURS = {128: 3, 2304: 4}  # RGB24 and RGBA32


@dataclass(frozen=True)
class Header:
    """What reading the voxels needs; names of people stand in other fields, which are not kept.

    Attributes:
        shape: voxels along ``i,j,k`` of the file.
        frames: volumes in the file, one after another.
        dtype: of the stored values.
        colours: 0, or how many of them are stored in each voxel.
        slope: stored values are multiplied by it ...
        inter: ... and then this is added.
        affine: from ``i,j,k,1`` to mm; None when neither sform nor qform is set.
        spacing_mm: along ``i,j,k``, used without an affine; empty when it is not known either.
        planar: whether the file says that it has two axes, or one slice.
        start: how many bytes lie between the header and the voxels.
    """

    shape: tuple[int, int, int]
    frames: int
    dtype: np.dtype
    colours: int
    slope: float
    inter: float
    affine: np.ndarray | None
    spacing_mm: tuple[float, ...]
    planar: bool
    start: int


def is_nifti(start: bytes) -> bool:
    """Whether ``start``, 348 bytes or more of a file that is not compressed, begin a single-file NIfTI."""
    for size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        if size in _HEADER_BYTES:
            return start[_MAGIC_AT[size] :][:4] == _HEADER_BYTES[size]
    return False


def frame_count(path: Path) -> int:
    """How many volumes the file holds, by its header.

    Raises:
        DataError: it has no usable header.
    """
    with open_regular(path) as file:
        return _read_header(BoundedReader(file, _WHAT, inflate=is_gzip(file))).frames


def read_nifti(
    path: Path, *, frame: int = 0, frames: Frames = "refuse", modality: Modality = Modality.unknown
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

    Raises:
        DataError: the file is damaged, cut short, longer than its header says, too large, of a kind that is no image
            (complex, vectors), or holds NaN or infinity.
    """
    with open_regular(path) as file:
        reader = BoundedReader(file, _WHAT, inflate=is_gzip(file))
        header = _read_header(reader)
        if header.frames > 1 and frames == "refuse":
            raise DataError(f"{_WHAT} has {header.frames} frames; frames: first or frames: all says which to take")
        if not 0 <= frame < header.frames:
            raise DataError(f"{_WHAT} has {header.frames} frames, no frame {frame}")
        count = math.prod(header.shape) * max(header.colours, 1)
        bytes_of_frame = count * header.dtype.itemsize
        reader.skip(header.start + frame * bytes_of_frame)
        stored = reader.read_array(count, header.dtype)
        reader.skip((header.frames - frame - 1) * bytes_of_frame)
        reader.expect_end()
    # The first axis of the file is the fastest; colours are faster still.
    voxels = stored.reshape(*header.shape[::-1], max(header.colours, 1)).transpose(2, 1, 0, 3)
    voxels = _scaled(voxels[..., :3], header)
    if header.affine is not None:
        voxels, spacing_mm, source = to_canonical(voxels, header.affine)
    else:
        voxels, spacing_mm, source = voxels.transpose(2, 1, 0, 3), header.spacing_mm[::-1], (2, 1, 0)
    pixels = np.moveaxis(voxels, -1, 0)
    if header.planar:
        slices = source.index(2)
        pixels = pixels.take(0, axis=1 + slices)
        spacing_mm = tuple(step for axis, step in enumerate(spacing_mm) if axis != slices)
    return Image(plain(pixels, _WHAT), modality, spacing_mm)


def _read_header(reader: BoundedReader) -> Header:
    """Parse the header; the reader then stands at its end, and ``start`` is counted from there."""
    raw = reader.read(348)
    if raw[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big")):
        raw += reader.read(540 - 348)
    if not is_nifti(raw):
        raise DataError("not a NIfTI file in one piece (.nii or .nii.gz)")
    try:
        header = _parse(raw)
    except DataError:
        raise
    except Exception as error:  # nibabel raises of many classes, and quotes the header
        raise DataError(f"{_WHAT} has an unusable header ({type(error).__name__})") from None
    if header.frames > _MAX_FRAMES:
        raise DataError(f"{_WHAT} has {header.frames} frames; at most {_MAX_FRAMES} are expected")
    size = check_size((math.prod(header.shape), max(header.colours, 1)), header.dtype, _WHAT)
    reader.require(header.start + header.frames * size)
    return header


def _parse(raw: bytes) -> Header:
    import nibabel

    kind = nibabel.Nifti1Header if len(raw) == 348 else nibabel.Nifti2Header
    # check=True would log what it finds, quoting the header.
    fields: Any = kind(raw, endianness="<" if raw[0] else ">", check=False)
    axes = int(fields["dim"][0])
    if not 2 <= axes <= 7:
        raise DataError(f"{_WHAT} says that it has {axes} axes")
    sizes = [int(size) for size in fields["dim"][1 : axes + 1]] + [1] * (7 - axes)
    if min(sizes) < 1 or max(sizes[4:]) > 1:
        raise DataError(f"{_WHAT} has axes {tuple(sizes[:axes])}; three for space and one for time are expected")
    dtype, colours = _dtype(fields)
    start = int(fields["vox_offset"]) - len(raw)
    if not 0 <= start <= _EXTENSION_BYTES:
        raise DataError(f"{_WHAT} begins {start} bytes after its header")
    slope, inter = (None, None) if colours else fields.get_slope_inter()
    to_mm = _TO_MM.get(int(fields["xyzt_units"]) & 7)
    affine = fields.get_sform(coded=True)[0]
    if affine is None:
        affine = fields.get_qform(coded=True)[0]
    if to_mm is None:
        raise DataError(f"{_WHAT} gives its distances in an unknown unit")
    return Header(
        shape=(sizes[0], sizes[1], sizes[2]),
        frames=sizes[3],
        dtype=dtype,
        colours=colours,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        affine=None if affine is None else affine * np.array([[to_mm], [to_mm], [to_mm], [1.0]]),
        spacing_mm=_zooms(fields["pixdim"][1:4] * to_mm),
        planar=sizes[2] == 1,
        start=start,
    )


def _dtype(fields: Any) -> tuple[np.dtype, int]:
    """Dtype of the stored values, and how many colours a voxel has."""
    code = int(fields["datatype"])
    if code in _COLOURS:
        return np.dtype(np.uint8), _COLOURS[code]
    dtype = fields.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"{_WHAT} holds {dtype} values; integers, floats of at most 64 bits or RGB are expected")
    return dtype, 0


def _zooms(zooms: np.ndarray) -> tuple[float, ...]:
    """The pixdim fields as spacing, or empty when they are no distances."""
    try:
        check_spacing(zooms)
    except DataError:
        return ()
    return tuple(float(zoom) for zoom in zooms)


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
    check_size(stored.shape, dtype, _WHAT)
    result = np.empty(stored.shape, dtype, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found to be infinite
        for k in range(stored.shape[2]):
            result[:, :, k] = stored[:, :, k].astype(np.float64) * slope + inter
    return result
