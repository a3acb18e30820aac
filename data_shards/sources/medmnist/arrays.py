"""The arrays of a MedMNIST archive, without holding them in memory.

Archives are opened by :func:`numpy.load`, and labels are read with it. The image arrays are compressed (deflate): an
image in the middle can be reached only by unpacking all before it, 12 GB for the largest, and no map of the archive is
possible. They are therefore unpacked once into a temporary folder, a mebibyte at a time, and images are read from there
at any position, by any process.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import struct
import tempfile
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib.npyio import NpzFile

from data_shards.sample import SPLITS
from data_shards.sources.medmnist.sets import Published
from data_shards.storage import locks
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task

_CHUNK_BYTES = 1 << 20
_FOLDER_PREFIX = "medformer-medmnist-"
_LOCK_NAME = "in-use"
# What zipfile and numpy raise for damaged files, the parser of the array headers included.
_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError),
    *(tokenize.TokenError, SyntaxError, TypeError, IndexError, MemoryError),
)


def read_labels(path: Path, archive: Published) -> dict[str, np.ndarray]:
    """The labels ``N,L`` of each split; the sizes of the image arrays are checked on the way, not their content.

    Raises:
        DataError: the file is not a readable npz, misses an array, or an array is not what the package's INFO says.
    """
    labels = {}
    for split in SPLITS:
        count, width = archive.samples[split], archive.label_width
        with _array(path, f"{split}_images", "uint8", (count, *archive.image_shape)):
            pass
        with _array(path, f"{split}_labels", "integers", (count, width)) as (arrays, _):
            labels_NL = arrays[f"{split}_labels"]
        largest = 1 if archive.task is Task.multilabel else len(archive.info["label"]) - 1
        if labels_NL.min() < 0 or labels_NL.max() > largest:
            found = f"{labels_NL.min()} to {labels_NL.max()}"
            raise DataError(f"{path}: array '{split}_labels' has values {found}, expected 0 to {largest}")
        labels[split] = labels_NL.astype(np.uint8)
    return labels


class UnpackedImages:
    """The image arrays of an archive as files of raw bytes in a temporary folder.

    The folder lies where :mod:`tempfile` puts it (``$TMPDIR``), goes with this object, and when a process was killed,
    with the next one that unpacks. A pickled copy reads the same files and removes nothing.

    Args:
        path: the archive.
        archive: what it is.

    Raises:
        DataError: an array is damaged, or there is no space for it.
    """

    def __init__(self, path: Path, archive: Published) -> None:
        self._shape = archive.image_shape
        self._name = archive.stem
        _remove_abandoned()
        try:
            self.folder, descriptor = _new_folder()
        except OSError as error:
            raise_out_of_files(error)
            raise DataError(f"{path}: no temporary folder to unpack it: {error.strerror or error}") from None
        remove = weakref.finalize(self, _remove, self.folder, descriptor, os.getpid())
        try:
            self._unpack(path, archive)
        except BaseException:
            remove()
            raise

    def _unpack(self, path: Path, archive: Published) -> None:
        needed = math.prod(self._shape) * sum(archive.samples.values())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise DataError(
                f"{path}: unpacking it takes {needed} bytes, and {self.folder.parent} has {free}; TMPDIR chooses "
                "another place"
            )
        for split in SPLITS:
            shape = (archive.samples[split], *self._shape)
            with (
                _array(path, f"{split}_images", "uint8", shape) as (_, source),
                open(self.folder / split, "wb", buffering=0) as target,
            ):
                while chunk := source.read(_CHUNK_BYTES):
                    _write(target, chunk)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "_shape": self._shape, "_name": self._name}

    def read(self, split: str, row: int) -> np.ndarray:
        """Image ``row`` of a split, as it is in the archive.

        Raises:
            DataError: the unpacked files are gone.
        """
        size = math.prod(self._shape)
        try:
            image = np.fromfile(self.folder / split, np.uint8, count=size, offset=row * size)
        except OSError as error:
            raise_out_of_files(error)
            image = np.empty(0, np.uint8)
        if image.size != size:
            raise DataError(f"{self._name}: the temporary folder of the unpacked images is gone or damaged")
        return image.reshape(self._shape)


@contextlib.contextmanager
def _array(path: Path, key: str, kind: str, shape: tuple[int, ...]) -> Iterator[tuple[NpzFile, IO[bytes]]]:
    """The open archive, and the bytes of one of its arrays as a stream behind the header.

    The header of the array and its size in the archive are compared with what is expected before anything is unpacked,
    so a small file cannot unpack to a large one.
    """
    try:
        if not zipfile.is_zipfile(path):  # numpy would read a single array whole before it says what it is
            raise ValueError("not a zip file")
        with np.load(path, allow_pickle=False) as arrays:
            if key not in arrays:
                names = ", ".join(arrays.files[:20])
                raise DataError(f"{path}: no array {key!r}; the archive holds {names or 'nothing'}")
            name = f"{key}.npy"
            with arrays.zip.open(name) as file:
                found, fortran, dtype = _header(file)
                right = dtype == np.uint8 if kind == "uint8" else dtype.kind in "ui"
                if found != shape or not right or fortran:
                    raise DataError(
                        f"{path}: array {key!r} is {dtype} of shape {found}{' in Fortran order' if fortran else ''}, "
                        f"expected {kind} of shape {shape}"
                    )
                stored, expected = arrays.zip.getinfo(name).file_size - file.tell(), math.prod(shape) * dtype.itemsize
                if stored != expected:
                    raise DataError(f"{path}: array {key!r} unpacks to {stored} bytes, expected {expected}")
                yield arrays, file
    except _UNREADABLE as error:
        raise_out_of_files(error)
        raise DataError(f"{path}: not a readable npz archive (array {key!r}): {error}") from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array in the npy format."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # later versions allow headers of gigabytes, and numpy writes them for record arrays only
        raise ValueError(f"npy format {version[0]}.{version[1]}")
    return np.lib.format.read_array_header_1_0(file)


def _write(file: IO[bytes], chunk: bytes) -> None:
    """Write all of ``chunk``; an error here is not one of the archive that is read."""
    view = memoryview(chunk)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise DataError(f"{file.name}: cannot be written: {error.strerror or error}") from None


def _new_folder() -> tuple[Path, int]:
    """A temporary folder, and a descriptor that holds the lock by which others see that it is in use."""
    made = Path(tempfile.mkdtemp(prefix=".medformer-"))
    descriptor = os.open(made / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    locks.try_lock(descriptor, shared=False)
    folder = made.with_name(_FOLDER_PREFIX + made.name.removeprefix(".medformer-"))
    made.rename(folder)  # has the name that others look for only now that it is locked
    return folder, descriptor


def _remove(folder: Path, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # not a forked copy
        shutil.rmtree(folder, ignore_errors=True)
        locks.close(descriptor)


def _remove_abandoned() -> None:
    """Remove what processes that were killed have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone already
            descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR)
            if locks.try_lock(descriptor, shared=False):
                shutil.rmtree(folder, ignore_errors=True)
            locks.close(descriptor)
