"""Pixels of one series in one convention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.dicom import describe, display, geometry, values
from data_shards.sources.images.dicom.decode import decode
from data_shards.sources.images.dicom.frames import Frame, frame_of, is_enhanced
from data_shards.sources.images.dicom.layout import Layout, layout_of
from data_shards.sources.images.dicom.parsing import parse
from data_shards.sources.images.dicom.plane import Plane, plane_of
from data_shards.sources.images.dicom.series import Series
from data_shards.sources.images.dicom.tables import Table, palette
from data_shards.sources.images.orientation import check_spacing, to_canonical
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.support.limits import check_size


@dataclass(frozen=True)
class _Slice:
    """One decoded frame: grey values ``H,W`` or colours ``H,W,3``."""

    pixels: np.ndarray
    plane: Plane
    bits: int
    mirrored: bool = False
    ends: tuple[float, float] | None = None
    window: Table | display.Window | None = None


def read_series(series: Series, *, voi: bool = False) -> Image:
    """Decode a series.

    One plane gives ``C,H,W``, several give ``C,D,H,W``. Where the place in the patient is known, the axes D,H,W of a
    volume run to superior, posterior, left, by turns of 90 degrees and flips alone. Other volumes keep the axes of
    the file, with slices in the order of their location or number. Spacing is empty when a part of it is unknown.

    Grey values are real values (modality lookup table, or slope and intercept of each slice), in the smallest of uint8,
    int16 and uint16 that holds all of them, else in float32, which is exact for whole numbers up to 2**24. MONOCHROME1
    is turned round by :func:`~data_shards.sources.images.dicom.values.mirror`. Colours are RGB.

    Args:
        series: from :func:`~data_shards.sources.images.dicom.series.find_series`.
        voi: give uint8 from 0 to 255 instead, as the header says the image is to be shown: first VOI lookup table,
            else first window, else from the smallest to the largest value. A volume is shown through the one window
            of its middle slice. MONOCHROME1 is turned round afterwards.

    Raises:
        DataError: a file is damaged, too large, or needs a decoder that is not installed, or slices do not form a
            volume. The message names slices by their number and quotes nothing of the files.
    """
    with silent_libraries():
        try:
            return _assemble(_read_slices(series, voi=voi), series, voi=voi)
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


def _assemble(slices: Sequence[_Slice], series: Series, *, voi: bool) -> Image:
    planes = [each.plane for each in slices]
    pixels = _volume(slices, voi=voi)
    spacing = planes[0].spacing or ()
    check_spacing(spacing)
    if len(slices) == 1:
        return Image(np.ascontiguousarray(pixels[:, 0]), series.modality, spacing)
    undescribed = len(series.paths) == 1 and not series.frames  # a multi-frame file that says nothing of its frames
    gap = planes[0].thickness if undescribed else geometry.slice_spacing(planes)
    spacing = (gap, *spacing) if gap and spacing else ()
    if not undescribed and planes[0].placed:
        pixels, spacing = _turned(pixels, planes[0], spacing)
    return Image(np.ascontiguousarray(pixels), series.modality, spacing)


def _turned(pixels: np.ndarray, plane: Plane, spacing: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, ...]]:
    affine = geometry.affine_of(plane, spacing)
    turned, turned_spacing, _ = to_canonical(np.moveaxis(pixels, 0, -1), affine)
    return np.moveaxis(turned, -1, 0), turned_spacing if spacing else ()


def _read_file(path: Path, frames: Sequence[int], files: int, *, voi: bool) -> list[_Slice]:
    parsed = parse(path, pixels=True)
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
    plain = None if described else _header_of(frame_of(dataset, 0))
    decoded = decode(dataset, parsed.pixel_keyword, layout, indices)
    slices = []
    for index, stored in zip(indices, decoded, strict=True):
        frame, plane = plain or _header_of(frame_of(dataset, index))
        slices.append(_slice(stored, frame, plane, layout, voi=voi))
    return slices


def _header_of(frame: Frame) -> tuple[Frame, Plane]:
    return frame, plane_of(frame, projection=describe.is_projection(frame.dataset))


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
