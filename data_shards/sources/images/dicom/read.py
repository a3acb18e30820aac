"""Pixels of one series in one convention."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.background import set_aside
from data_shards.sources.images.dicom import describe, display, geometry, values
from data_shards.sources.images.dicom.decode import decode
from data_shards.sources.images.dicom.frames import Frame, frame_of, is_enhanced
from data_shards.sources.images.dicom.headers import planes_of
from data_shards.sources.images.dicom.layout import Layout, layout_of
from data_shards.sources.images.dicom.padding import padding_of, without_padding
from data_shards.sources.images.dicom.parsing import Parsed, parse
from data_shards.sources.images.dicom.plane import Plane, plane_of
from data_shards.sources.images.dicom.rules import SliceRules
from data_shards.sources.images.dicom.series import Series
from data_shards.sources.images.dicom.spread import resampled
from data_shards.sources.images.dicom.tables import Table, palette
from data_shards.sources.images.orientation import canonical_grid, check_spacing, to_canonical
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.support.limits import check_size

_RULES = SliceRules()
PADDED = "pixels that the scanner did not measure (Pixel Padding Value) count as background"
SPREAD = "slices at uneven distances were interpolated onto a regular grid"
# A clip is read frame by frame, each as a sample of its own: files up to this size are parsed once for neighbours.
_KEPT_BYTES = 64 << 20


@dataclass(frozen=True)
class _Slice:
    """One decoded frame: grey values ``H,W`` or colours ``H,W,3``, and where it was measured (None: everywhere)."""

    pixels: np.ndarray
    plane: Plane
    bits: int
    mirrored: bool = False
    ends: tuple[float, float] | None = None
    window: Table | display.Window | None = None
    measured: np.ndarray | None = None


def read_series(series: Series, *, voi: bool = False, rules: SliceRules = _RULES) -> Image:
    """Decode a series.

    One plane gives ``C,H,W``, several give ``C,D,H,W``. Where the place in the patient is known, the axes D,H,W of a
    volume run to superior, posterior, left, by turns of 90 degrees and flips alone. Other volumes keep the axes of
    the file, with slices in the order of their location or number. Spacing is empty when a part of it is unknown.

    Grey values are real values (modality lookup table, or slope and intercept of each slice), in the smallest of uint8,
    int16 and uint16 that holds all of them, else in float32, which is exact for whole numbers up to 2**24. MONOCHROME1
    is turned round by :func:`~data_shards.sources.images.dicom.values.mirror`. Colours are RGB.

    Padding of the scanner takes the smallest value that was measured and is marked in ``measured`` of the image. An
    image that is nothing but padding is taken as it is.

    Args:
        series: from :func:`~data_shards.sources.images.dicom.series.find_series`.
        voi: give uint8 from 0 to 255 instead, as the header says the image is to be shown: first VOI lookup table,
            else first window, else from the smallest to the largest value. A volume is shown through the one window
            of its middle slice. MONOCHROME1 is turned round afterwards.
        rules: how far slices may lie off a regular grid, and whether others are interpolated onto one.

    Raises:
        DataError: a file is damaged, too large, or needs a decoder that is not installed, or slices do not form a
            volume. The message names slices by their number and quotes nothing of the files.
    """
    with silent_libraries():
        try:
            return _assemble(_read_slices(series, voi=voi), series, rules, voi=voi)
        except MemoryError:
            raise DataError("not enough memory for the decoded image") from None


def _read_slices(series: Series, *, voi: bool) -> list[_Slice]:
    """All frames in rising height."""
    slices: list[_Slice] = []
    count = len(series.paths)
    for number, path in enumerate(series.paths, 1):
        try:
            slices += _read_file(path, series.frames, count, voi=voi)
            _check_alike(slices)
        except DataError as error:
            where = f"slice {number} of {count}: " if count > 1 else ""
            raise DataError(f"{where}{error}") from None
    return [slices[place] for place in geometry.slice_order([each.plane for each in slices])]


def _assemble(slices: Sequence[_Slice], series: Series, rules: SliceRules, *, voi: bool) -> Image:
    planes = [each.plane for each in slices]
    spacing = planes[0].spacing or ()
    check_spacing(spacing)
    slices, measured = _padding_aside(slices)
    pixels = _volume(slices, voi=voi)
    if len(slices) == 1:
        image = Image(np.ascontiguousarray(pixels[:, 0]), series.modality, spacing)
        return image if measured is None else _set_aside(image, measured[0])
    gap, grid = geometry.slice_spacing(planes, rules)
    if grid is not None:
        pixels = resampled(pixels, grid)
        measured = None if measured is None else resampled(measured[None].astype(np.float32), grid)[0] == 1
    spacing = (gap, *spacing) if gap and spacing else ()
    affine: np.ndarray | None = None
    if planes[0].placed:
        if planes[-1].placed and gap and planes[0].spacing:
            shape = pixels.shape[1:]
            affine = canonical_grid(shape, geometry.placed_affine(planes[0], planes[-1], shape[0])).affine
        whole = pixels if measured is None else np.concatenate([pixels, measured[None].astype(pixels.dtype)])
        whole, spacing = _turned(whole, planes[0], spacing)
        pixels, measured = (whole, None) if measured is None else (whole[:-1], whole[-1] == 1)
    notes = () if grid is None else (SPREAD,)
    image = Image(np.ascontiguousarray(pixels), series.modality, spacing, notes=notes, affine=affine)
    return image if measured is None else _set_aside(image, measured)


def _set_aside(image: Image, measured: np.ndarray) -> Image:
    image = set_aside(image, ~measured)
    return replace(image, notes=(*image.notes, PADDED)) if image.measured is not None else image


def _padding_aside(slices: Sequence[_Slice]) -> tuple[Sequence[_Slice], np.ndarray | None]:
    """Slices of which none holds padding, and where ``D,H,W`` they were measured; None when everywhere."""
    some = [each for each in slices if each.measured is None or each.measured.any()]
    if not some or all(each.measured is None for each in slices):
        return slices, None
    # A slice of nothing but padding takes the values of one that was measured; all of it is set aside.
    filled = [each if each.measured is None or each.measured.any() else _like(some[0], each) for each in slices]
    everywhere = np.ones(slices[0].pixels.shape[:2], bool)
    return filled, np.stack([everywhere if each.measured is None else each.measured for each in slices])


def _like(measured: _Slice, padding: _Slice) -> _Slice:
    return replace(padding, pixels=measured.pixels, ends=measured.ends, bits=measured.bits)


def _turned(pixels: np.ndarray, plane: Plane, spacing: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, ...]]:
    affine = geometry.affine_of(plane, spacing)
    turned, turned_spacing, _ = to_canonical(np.moveaxis(pixels, 0, -1), affine)
    return np.moveaxis(turned, -1, 0), turned_spacing if spacing else ()


def _read_file(path: Path, frames: Sequence[int], files: int, *, voi: bool) -> list[_Slice]:
    parsed = _parsed(path, frames)
    if not parsed.pixel_keyword:
        raise DataError("no pixel data")
    dataset = parsed.dataset
    layout = layout_of(dataset, parsed.pixel_keyword)
    indices = sorted(frames) or range(layout.frames)  # in the order of the file: heights sort the slices later
    if indices[-1] >= layout.frames:
        raise DataError(f"frame {indices[-1] + 1} of {layout.frames} does not exist")
    check_size(
        (files, len(indices), layout.rows, layout.columns, layout.samples),
        f"u{max(layout.allocated // 8, 1)}",
        "a volume",
    )
    described = is_enhanced(dataset)
    planes = () if described else planes_of(dataset, layout)[0]
    padding = padding_of(dataset, layout) if layout.samples == 1 else None
    decoded = decode(dataset, parsed.pixel_keyword, layout, indices)
    slices = []
    for index, stored in zip(indices, decoded, strict=True):
        frame = frame_of(dataset, index if described else 0)
        plane = plane_of(frame, projection=describe.is_projection(dataset)) if described else planes[index]
        values_only, measured = without_padding(stored, padding)
        slices.append(replace(_slice(values_only, frame, plane, layout, voi=voi), measured=measured))
    return slices


def _parsed(path: Path, frames: Sequence[int]) -> Parsed:
    """The file with its pixels, kept in memory for the next of its frames."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror}") from None
    if not frames or status.st_size > _KEPT_BYTES:
        return parse(path, pixels=True)
    return _kept(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _kept(path: Path, size: int, modified_ns: int) -> Parsed:
    """By size and time of change, so that a file that was replaced is read again."""
    return parse(path, pixels=True)


def _slice(stored: np.ndarray, frame: Frame, plane: Plane, layout: Layout, *, voi: bool) -> _Slice:
    if layout.samples == 3:
        return _Slice(values.fit(stored), plane, layout.stored)
    if layout.photometric == "PALETTE COLOR":
        tables = palette(frame.dataset)
        return _Slice(np.stack([table(stored) for table in tables], axis=-1), plane, tables[0].bits)
    real, ends = values.real_values(stored, frame, layout)
    window = display.window_of(frame) if voi else None
    return _Slice(real, plane, layout.stored, layout.photometric == "MONOCHROME1", ends, window)


def _check_alike(slices: Sequence[_Slice]) -> None:
    first, last = slices[0], slices[-1]
    if first.pixels.shape != last.pixels.shape:
        raise DataError(f"{last.pixels.shape} pixels, the first slice has {first.pixels.shape}")
    if first.mirrored != last.mirrored:
        raise DataError("MONOCHROME1 and MONOCHROME2 are mixed")
    if first.plane.placed != last.plane.placed:
        raise DataError("only some slices say where in the patient they lie")


def _volume(slices: Sequence[_Slice], *, voi: bool) -> np.ndarray:
    """``C,D,H,W`` of slices in order."""
    middle = slices[len(slices) // 2]
    if middle.pixels.ndim == 3:
        colours = values.stack([each.pixels for each in slices])
        return np.moveaxis(display.shown_colour(colours, middle.bits) if voi else colours, -1, 0)
    if voi:
        grey = display.shown(values.stack([each.pixels for each in slices]), middle.window)
        return (255 - grey if middle.mirrored else grey)[None]
    planes = [values.mirror(each.pixels, each.ends) if each.mirrored else each.pixels for each in slices]
    return values.stack(planes)[None]
