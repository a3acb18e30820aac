"""Headers of NIfTI-1 and NIfTI-2: what is needed to read the voxels, and where they lie in the patient.

nibabel knows the fields. Ours is what a header means that is broken by rounding or by a careless writer: FSL, ITK and
the reference code of NIfTI-1 read such files, and each in its own way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.sources.images.orientation import canonical_grid, check_spacing, usable
from data_shards.support.errors import DataError
from data_shards.support.limits import BoundedReader, check_size

WHAT = "the NIfTI volume"
_HEADER_BYTES = {348: b"n+1\0", 540: b"n+2\0"}
_MAGIC_AT = {348: 344, 540: 4}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units; what says nothing is taken for mm, as all tools do
# Header extensions often hold whole DICOM headers. They are passed over; this is how long they may be.
_EXTENSION_BYTES = 64 << 20
_MAX_FRAMES = 32767  # what NIfTI-1 can count; NIfTI-2 could claim more samples than fit in memory
_COLOURS = {128: 3, 2304: 4}  # RGB24 and RGBA32
# The square of a quaternion's vector part may be so much above 1: it was written with four digits or more.
_QUATERNION_TOLERANCE = 2e-3
# sform and qform say the same when no voxel lies farther from its place than this, in sides of a voxel.
_SAME_PLACE_VOXELS = 0.5


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
        spacing_mm: along ``i,j,k``; NaN where it is not known.
        planar: whether the file says that it has two axes, or one slice.
        start: how many bytes lie between the header and the voxels.
        notes: what its owner has to know of it.
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
    notes: tuple[str, ...] = ()


def is_nifti(start: bytes) -> bool:
    """Whether ``start``, 348 bytes or more of a file that is not compressed, begin a single-file NIfTI."""
    for size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        if size in _HEADER_BYTES:
            return start[_MAGIC_AT[size] :][:4] == _HEADER_BYTES[size]
    return False


def read_header(reader: BoundedReader) -> Header:
    """Parse the header; the reader then stands at its end, and ``start`` is counted from there.

    Raises:
        DataError: it is no NIfTI header, or what it says cannot be.
    """
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
        raise DataError(f"{WHAT} has an unusable header ({type(error).__name__})") from None
    if header.frames > _MAX_FRAMES:
        raise DataError(f"{WHAT} has {header.frames} frames; at most {_MAX_FRAMES} are expected")
    size = check_size((math.prod(header.shape), max(header.colours, 1)), header.dtype, WHAT)
    reader.require(header.start + header.frames * size)
    return header


def _parse(raw: bytes) -> Header:
    import nibabel

    kind = nibabel.Nifti1Header if len(raw) == 348 else nibabel.Nifti2Header
    # check=True would log what it finds, quoting the header.
    fields: Any = kind(raw, endianness="<" if raw[0] else ">", check=False)
    axes = int(fields["dim"][0])
    if not 2 <= axes <= 7:
        raise DataError(f"{WHAT} says that it has {axes} axes")
    sizes = [int(size) for size in fields["dim"][1 : axes + 1]] + [1] * (7 - axes)
    if min(sizes) < 1 or max(sizes[4:]) > 1:
        raise DataError(f"{WHAT} has axes {tuple(sizes[:axes])}; three for space and one for time are expected")
    dtype, colours = _dtype(fields)
    start = int(fields["vox_offset"]) - len(raw)
    if not 0 <= start <= _EXTENSION_BYTES:
        raise DataError(f"{WHAT} begins {start} bytes after its header")
    slope, inter = (None, None) if colours else fields.get_slope_inter()
    to_mm = _TO_MM.get(int(fields["xyzt_units"]) & 7)
    if to_mm is None:
        raise DataError(f"{WHAT} gives its distances in an unknown unit")
    affine, spacing_mm, notes = _placement(fields, (sizes[0], sizes[1], sizes[2]), to_mm)
    return Header(
        shape=(sizes[0], sizes[1], sizes[2]),
        frames=sizes[3],
        dtype=dtype,
        colours=colours,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        affine=affine,
        spacing_mm=spacing_mm,
        planar=sizes[2] == 1,
        start=start,
        notes=notes,
    )


def _dtype(fields: Any) -> tuple[np.dtype, int]:
    """Dtype of the stored values, and how many colours a voxel has."""
    code = int(fields["datatype"])
    if code in _COLOURS:
        return np.dtype(np.uint8), _COLOURS[code]
    dtype = fields.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"{WHAT} holds {dtype} values; integers, floats of at most 64 bits or RGB are expected")
    return dtype, 0


def _placement(
    fields: Any, shape: tuple[int, int, int], to_mm: float
) -> tuple[np.ndarray | None, tuple[float, ...], tuple[str, ...]]:
    """Affine in mm or None, spacing along ``i,j,k`` with NaN where it is not known, and notes.

    The sform counts, else the qform, as in ITK, FSL and nibabel; one that is all zeros says nothing.
    """
    notes = []
    scale = np.diag([to_mm, to_mm, to_mm, 1.0])
    zooms, signed = _zooms(fields["pixdim"][1:4] * to_mm)
    if signed:
        notes.append("negative distances of voxels (pixdim) are taken without their sign")
    sform = _said(scale @ fields.get_sform().astype(float)) if int(fields["sform_code"]) > 0 else None
    if sform is not None and shape[2] == 1 and not sform[:3, 2].any():
        normal = np.cross(sform[:3, 0], sform[:3, 1])  # a single plane has no step to the next one
        sform[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    qform = None
    if int(fields["qform_code"]) > 0:
        try:
            qform = _said(scale @ _qform(fields, zooms / to_mm))
        except ValueError:  # nibabel's own errors of headers are of this kind, too
            if sform is None or not usable(sform):
                raise
    if sform is not None and not usable(sform) and qform is not None and usable(qform):
        notes.append("the sform does not span space: the qform counts")
        sform = None
    if sform is None:
        return qform, tuple(zooms.tolist()), tuple(notes)
    if qform is not None and usable(qform) and _differ(sform, qform, shape):
        notes.append("sform and qform place the voxels differently: the sform counts")
    return sform, tuple(np.linalg.norm(sform[:3, :3], axis=0).tolist()), tuple(notes)


def _said(affine: np.ndarray) -> np.ndarray | None:
    """The affine, or None where it is all zeros and says nothing."""
    return affine if affine[:3, :3].any() else None


def _qform(fields: Any, zooms: np.ndarray) -> np.ndarray:
    """The affine of the qform; where a distance is not known, it has a column of length 1.

    A quaternion that rounding has made longer than 1 is a rotation by 180 degrees, as in ``nifti_quatern_to_mat44`` of
    the reference code.

    Raises:
        ValueError: the quaternion is no rotation.
    """
    header = fields.copy()
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = np.array([float(header[name]) for name in names])
    length = float(np.linalg.norm(vector))
    if 1 < length * length <= 1 + _QUATERNION_TOLERANCE:
        for name, value in zip(names, vector / length, strict=True):
            header[name] = value
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # anything but -1 is read as 1
    header["pixdim"][1:4] = np.where(np.isnan(zooms), 1.0, zooms)
    return np.asarray(header.get_qform(), dtype=float)


def _zooms(zooms: np.ndarray) -> tuple[np.ndarray, bool]:
    """The pixdim fields in mm as float64 with NaN where one is no distance, and whether one was negative."""
    found = np.abs(zooms.astype(float))
    for axis, zoom in enumerate(found):
        try:
            check_spacing([zoom])
        except DataError:
            found[axis] = np.nan
    return found, bool((zooms < 0).any())


def _differ(one: np.ndarray, other: np.ndarray, shape: tuple[int, int, int]) -> bool:
    """Whether two affines turn or stretch a volume differently; where it lies as a whole does not matter to it."""
    first, second = canonical_grid(shape, one), canonical_grid(shape, other)
    if first.shape != second.shape or not np.array_equal(_signs(one), _signs(other)):
        return True
    norms = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (one, other)]
    return bool((np.abs(norms[0] - norms[1]) * np.array(shape) > _SAME_PLACE_VOXELS * norms[0]).any())


def _signs(affine: np.ndarray) -> np.ndarray:
    from nibabel import orientations

    return np.asarray(orientations.io_orientation(affine))
