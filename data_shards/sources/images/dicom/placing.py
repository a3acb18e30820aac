"""Where the voxels of a series lie in the patient, from the headers of its first and its last file alone."""

from __future__ import annotations

from data_shards.sources.images.dicom import describe
from data_shards.sources.images.dicom.frames import frame_of
from data_shards.sources.images.dicom.geometry import placed_affine
from data_shards.sources.images.dicom.layout import layout_of
from data_shards.sources.images.dicom.parsing import parse
from data_shards.sources.images.dicom.plane import Plane, plane_of
from data_shards.sources.images.dicom.series import Series
from data_shards.sources.images.orientation import Grid, canonical_grid
from data_shards.sources.images.quiet import silent_libraries


def grid_of(series: Series) -> Grid | None:
    """The grid of the volume that reading the series gives; None where it is not turned to the canonical axes.

    Raises:
        DataError: a header cannot be read.
    """
    if not series.oriented:
        return None
    with silent_libraries():
        (first, size), (last, _) = (_end(series, end) for end in (0, -1))
    if not (first.placed and last.placed and first.spacing):
        return None
    count = len(series.frames) or len(series.paths)
    return canonical_grid((count, *size), placed_affine(first, last, count))


def _end(series: Series, end: int) -> tuple[Plane, tuple[int, int]]:
    """The plane of the first or the last slice, and its rows and columns."""
    parsed = parse(series.paths[end], pixels=False)
    layout = layout_of(parsed.dataset, parsed.pixel_keyword)
    frame = frame_of(parsed.dataset, series.frames[end] if series.frames else 0)
    return plane_of(frame, projection=describe.is_projection(frame.dataset)), (layout.rows, layout.columns)
