"""Listing an archive of DICOM files: by one process, by several, and again from what an earlier run has kept."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.table import Table
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.source import Images
from data_shards.sources.listing import Listing, listing_with

SERIES, SLICES = 60, 50
REPEATS = 3
_SALT = "of a benchmark"


def run() -> Table:
    """Seconds of each: medians over repeats that alternate."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in"
        _write(root)
        once, several, again = "1 process", f"{cores} processes", "again, from the kept listing"
        seconds: dict[str, list[float]] = {once: [], several: [], again: []}
        for _ in range(REPEATS):
            kept = Listing(cores, Path(folder) / "out")
            seconds[once].append(_list(root, Listing()))
            seconds[several].append(_list(root, kept))
            seconds[again].append(_list(root, kept))
            kept.forget("x")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return Table(
        title=f"Listing {SERIES * SLICES:,} DICOM files in {SERIES} series",
        command="python -m benchmarks listing",
        columns=("listing", f"seconds, median of {REPEATS}", "times as fast"),
        rows=tuple((name, f"{value:.2f}", f"{medians[once] / value:.1f}") for name, value in medians.items()),
        remarks="Slices of 64 x 64 pixels, warm page cache; start of the processes, grouping into volumes, and sealing "
        "and opening of the kept listing included.",
    )


def _list(root: Path, listing: Listing) -> float:
    started_s = time.perf_counter()
    with listing_with(listing):
        found = Images(ImagesConfig(root=root, name="x"), _SALT)
    seconds = time.perf_counter() - started_s
    if len(found) != SERIES:
        raise RuntimeError(f"{len(found)} volumes, expected {SERIES}")
    return seconds


def _write(root: Path) -> None:
    pixels = np.zeros((64, 64), np.int16).tobytes()
    for series in range(SERIES):
        folder = root / f"{series:03d}"
        folder.mkdir(parents=True)
        uid = generate_uid()
        for number in range(SLICES):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
            data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, generate_uid(), "CT"
            data.StudyInstanceUID = data.SeriesInstanceUID = uid
            data.PatientID, data.AcquisitionTime, data.InstanceNumber = f"P{series}", f"12{number:02d}00", number + 1
            data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
            data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [1, 1], "1", "-1024"
            data.Rows = data.Columns = 64
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
            data.PixelData = pixels
            data.save_as(folder / f"{number:03d}", enforce_file_format=True)
