"""DICOM files written by pydicom, with content known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from data_shards.sample import Image
from data_shards.sources.images.dicom import find_series, read_series

MR, CT, PET = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("4", "2", "128"))
ENHANCED_MR, SECONDARY_CAPTURE, DX = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("4.1", "7", "1.1.1"))

# Canonical grid of the synthetic anatomy: sizes and spacing of D, H, W and the place of its first voxel (x, y, z).
SIZES, SPACING, ORIGIN = (5, 6, 7), (3.0, 1.5, 0.75), np.array([-20.0, 11.0, 40.0])


def anatomy(points: np.ndarray) -> np.ndarray:
    """Intensity at points in patient coordinates (mm to the left, the back, the head); different at every voxel."""
    index = np.rint((points - ORIGIN) / np.array(SPACING[::-1])).astype(np.int64)
    return index[..., 0] + 10 * index[..., 1] + 100 * index[..., 2] + 1


def canonical() -> np.ndarray:
    """The anatomy with axes superior, posterior, left."""
    z, y, x = np.meshgrid(*(np.arange(size) for size in SIZES), indexing="ij")
    return anatomy(ORIGIN + np.stack([x, y, z], axis=-1) * np.array(SPACING[::-1]))


def header(pixels: np.ndarray, **attributes: Any) -> Dataset:
    """A data set with these pixels ``H,W`` or ``H,W,3`` or frames of them; attributes replace what is made up here."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Modality, dataset.PatientID = "MR", "P1"
    dataset.SamplesPerPixel = 3 if pixels.ndim > 2 and pixels.shape[-1] == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    plane = pixels.shape[:-1] if dataset.SamplesPerPixel == 3 else pixels.shape
    dataset.Rows, dataset.Columns = plane[-2:]
    if len(plane) == 3:
        dataset.NumberOfFrames = plane[0]
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, content in attributes.items():
        setattr(dataset, name, content)
    return dataset


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a file with preamble and meta information."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.file_meta = meta
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def stack(
    folder: Path,
    row: Sequence[float] = (1, 0, 0),
    column: Sequence[float] = (0, 1, 0),
    *,
    change: Callable[[int, Dataset], None] | None = None,
    **attributes: Any,
) -> list[Path]:
    """One file for each slice of the anatomy, as a scanner with these directions (along the axes) would give them.

    Args:
        folder: where to; created.
        row: direction of rising column index.
        column: direction of rising row index.
        change: alters the data set of a slice before it is written.
        attributes: of every slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(row, dtype=float), np.array(column, dtype=float)
    normal = np.cross(row, column)
    sizes, spacing = np.array(SIZES[::-1]), np.array(SPACING[::-1])
    corner = ORIGIN + np.where(row + column + normal < 0, (sizes - 1) * spacing, 0)
    count, rows, columns = (int(abs(direction) @ sizes) for direction in (normal, column, row))
    gap, between_rows, between_columns = (float(abs(direction) @ spacing) for direction in (normal, column, row))
    paths = []
    for number in range(count):
        first = corner + number * gap * normal
        i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        points = first + i[..., None] * between_rows * column + j[..., None] * between_columns * row
        dataset = header(anatomy(points).astype(np.uint16))
        dataset.ImagePositionPatient = [f"{value:g}" for value in first]
        dataset.ImageOrientationPatient = [f"{value:g}" for value in (*row, *column)]
        dataset.PixelSpacing = [between_rows, between_columns]
        dataset.InstanceNumber = count - number
        for name, content in attributes.items():
            setattr(dataset, name, content)
        if change:
            change(number, dataset)
        paths.append(save(dataset, folder / f"{number}.dcm"))
    return paths


def item(**attributes: Any) -> Items:
    """A sequence of one item."""
    dataset = Dataset()
    for name, content in attributes.items():
        setattr(dataset, name, content)
    return Items([dataset])


def read(paths: Path | Sequence[Path], *, voi: bool = False) -> Image:
    """The one image that the files make; all of them belong to it."""
    series, unused = find_series([paths] if isinstance(paths, Path) else paths)
    assert len(series) == 1 and not unused, (series, unused)
    return read_series(series[0], voi=voi)


def packaged(name: str) -> Path:
    """A file that is installed with pydicom; never fetched from elsewhere."""
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    assert path.is_file(), f"pydicom {pydicom.__version__} does not bring {name}"
    return path
