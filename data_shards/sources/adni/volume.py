"""The pixels of one image of an export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_shards.sample import Image
from data_shards.sources.adni.facts import ptid_of
from data_shards.sources.images.dicom import find_series, read_series
from data_shards.sources.images.nifti import frame_count, read_nifti
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality

_MOST_FRAMES = 256  # dynamic PET has fewer than 100; each frame is read on its own


def read_volume(paths: Sequence[Path], modality: Modality, *, dicom: bool, ptid: str) -> Image:
    """Read a NIfTI file or the slices of a DICOM image as one volume ``C,D,H,W``.

    A PET image in several frames becomes their plain mean in float32: frames are not weighted by their length and not
    aligned. Processed images of ADNI ("Coreg, Avg") are averaged already and have one frame.

    Args:
        paths: one NIfTI file, or all slices.
        modality: ``mri`` or ``pet``; decides what several frames mean.
        dicom: whether ``paths`` are slices.
        ptid: the subject by the path; DICOM slices that name another one are refused.

    Raises:
        DataError: a file is damaged, slices do not make one volume, or an MRI has several.
    """
    count, frames = _dicom_frames(paths, ptid) if dicom else _nifti_frames(paths[0], modality)
    if count > 1 and modality is not Modality.pet:
        raise DataError(f"{count} volumes in one image; an MRI is expected to have one")
    if count > _MOST_FRAMES:
        raise DataError(f"{count} frames; at most {_MOST_FRAMES} are expected")
    first = next(frames)
    if first.pixels.ndim != 4:
        raise DataError("a single slice in place of a volume")
    if count == 1:
        return replace(first, modality=modality)
    total = first.pixels.astype(np.float64)
    for number, frame in enumerate(frames, start=2):
        if frame.pixels.shape != first.pixels.shape or not _alike(frame.spacing_mm, first.spacing_mm):
            raise DataError(f"frame {number} of {count} has another shape or spacing than the first")
        total += frame.pixels
    return Image((total / count).astype(np.float32), modality, first.spacing_mm, notes=first.notes)


def _alike(spacing_mm: Sequence[float], other_mm: Sequence[float]) -> bool:
    return len(spacing_mm) == len(other_mm) and np.allclose(spacing_mm, other_mm, rtol=1e-3)


def _nifti_frames(path: Path, modality: Modality) -> tuple[int, Iterator[Image]]:
    count = frame_count(path)
    return count, (read_nifti(path, frame=frame, frames="all", modality=modality) for frame in range(count))


def _dicom_frames(paths: Sequence[Path], ptid: str) -> tuple[int, Iterator[Image]]:
    found, unused = find_series(paths)
    for position, reason, damaged in unused:
        if damaged:
            raise DataError(f"slice {position + 1} of {len(paths)}: {reason}")
    if not found:
        raise DataError(f"no image in {len(paths)} DICOM files: {unused[0].reason}")
    if any(ptid_of(series.patient) not in ("", ptid) for series in found):
        raise DataError("its DICOM header names another subject than its folder")
    if any((len(series.paths), len(series.frames)) != (len(found[0].paths), len(found[0].frames)) for series in found):
        raise DataError("its slices do not make one volume, or frames of equal size")
    return len(found), (read_series(series) for series in found)
