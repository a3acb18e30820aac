"""What gzipped members of shards cost: size, reading and writing against plain ones, on real images."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom

from benchmarks.data import Held
from benchmarks.interleaved import interleaved
from benchmarks.table import Table
from data_shards.reading.reader import ShardedDataset
from data_shards.writing.writer import write_dataset

READS, WRITES = 12, 6
"""Pairs of measurements."""
BATCH = 8
VOLUMES = 50


def run() -> Table:
    """Every set stored plain and gzipped, read and written in turn."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MEDFORMER_BENCHMARK_FOLDER")) as home:
        rows = [_row(Path(home) / name.replace(" ", "-"), name, images) for name, images in real_images().items()]
    return Table(
        title="Gzipped members of shards against plain ones",
        command="python -m benchmarks compression",
        columns=("images", "size", "time to read", "MB/s read", "plain", "time to write", "MB/s written"),
        rows=tuple(rows),
        remarks=f"Gzipped : plain, seconds of the processor on one thread, medians of {READS} pairs of reads and "
        f"{WRITES} of writes in turn with 95 % intervals; MB are those of the values. All images in batches of "
        f"{BATCH}, shuffled, page cache warm, each checked by its CRC. Writing counts, hashes and indexes too. "
        "Measured on a shared machine: the ratios are of runs that alternated, the rates are of that hour.",
    )


def _row(home: Path, name: str, images: Sequence[np.ndarray]) -> tuple[str, ...]:
    plain, gzipped = home / "plain", home / "gzipped"
    for folder in (plain, gzipped):
        write_dataset(Held(images), folder, overwrite=True, compress=folder is gzipped)
    size = _tar_bytes(gzipped) / _tar_bytes(plain)
    reads = interleaved(lambda: read(gzipped), lambda: read(plain), pairs=READS)
    numbers = itertools.count()

    def written(*, compress: bool) -> None:
        write_dataset(Held(images), home / f"{next(numbers)}", compress=compress)

    writes = interleaved(lambda: written(compress=True), lambda: written(compress=False), pairs=WRITES)
    values = sum(image.nbytes for image in images) / 1e6
    rates = (f"{values / seconds:,.0f}" for seconds in (reads.first_s, reads.second_s))
    return (name, f"{size:.2f}", reads.text, *rates, writes.text, f"{values / writes.first_s:,.0f}")


def _tar_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def read(folder: Path) -> None:
    """All images in batches, shuffled; they may differ in shape."""
    dataset = ShardedDataset(folder, "train")
    order = np.random.default_rng(0).permutation(len(dataset))
    for start in range(0, len(dataset), BATCH):
        dataset.read(order[start : start + BATCH])


def real_images() -> dict[str, list[np.ndarray]]:
    """Images of MEDFORMER_SHARED_DATA by what they are, each in its own dtype; what is not there is left out."""
    root = Path(os.environ.get("MEDFORMER_SHARED_DATA") or "../shared/data")
    slices = _files(root / "dicom_mr_series", "*.dcm")
    heads = _files(root / "hippocampus" / "images", "*.nii.gz")
    found = {
        "slices of a brain MR": [pydicom.dcmread(path).pixel_array[None] for path in slices],
        "hippocampi": [np.asarray(nibabel.load(path).dataobj)[None] for path in heads],
    }
    archive = root / "medmnist" / "adrenalmnist3d_64.npz"
    if archive.is_file():
        found["adrenal glands, shapes"] = list(np.load(archive)["train_images"][:VOLUMES, None])
    return {f"{len(each)} {name}, {_dtypes(each)}": each for name, each in found.items() if each}


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))[: 2 * VOLUMES]


def _dtypes(images: Sequence[np.ndarray]) -> str:
    return " and ".join(sorted({image.dtype.newbyteorder("=").name for image in images}))
