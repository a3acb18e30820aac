"""How much a single file may ask for, and reading that never takes more."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError

# Decoded bytes of one image. A whole-body CT of 512 x 512 x 2000 voxels of 16 bits is half of it.
MAX_BYTES = 2 << 30

# Deflate cannot pack more than 1032 bytes into one (zlib's technical notes); a file that claims more is cut short.
_DEFLATE_RATIO = 1032
_CHUNK_BYTES = 1 << 20


def check_size(shape: Sequence[int], dtype: np.dtype | type | str, what: str) -> int:
    """How many bytes an array takes, known before any of them is allocated.

    Args:
        shape: its axes, as a header gives them.
        dtype: of its values.
        what: what is to be decoded, for the message; it names no file.

    Raises:
        DataError: an axis is empty or the array is larger than :data:`MAX_BYTES`.
    """
    sizes = [int(size) for size in shape]
    if not sizes or min(sizes) < 1:
        raise DataError(f"{what} has an empty axis: shape {tuple(sizes)}")
    count = math.prod(sizes) * np.dtype(dtype).itemsize
    if count > MAX_BYTES:
        raise DataError(f"{what} would take {count} bytes when decoded, at most {MAX_BYTES} are accepted")
    return count


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe or a device, which could block for ever, is refused.

    Raises:
        DataError: it cannot be opened or is not a regular file; the message does not name it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise_out_of_files(error)
        number = getattr(error, "errno", None)
        raise DataError(f"cannot be opened: {os.strerror(number) if number else type(error).__name__}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError("not a regular file")
    return os.fdopen(descriptor, "rb")


def is_gzip(file: BinaryIO) -> bool:
    """Whether the file starts as gzip does; the position is left at its start."""
    start = file.read(2)
    file.seek(0)
    return start == b"\x1f\x8b"


class BoundedReader:
    """A file read to its end, as it stands or inflated from gzip, in pieces that the caller sizes.

    Nothing is inflated that was not asked for, so a gzip bomb costs what the header of the image inside may cost.

    Args:
        file: an open file; reading begins where it stands.
        what: what it holds, for messages.
        inflate: whether it is to be inflated from gzip.
    """

    def __init__(self, file: BinaryIO, what: str, *, inflate: bool = False) -> None:
        self._what = what
        size = os.fstat(file.fileno()).st_size
        self._stream: Any = file
        if inflate:
            from isal import igzip

            self._stream = igzip.IGzipFile(fileobj=file)
            self._at_most = size * _DEFLATE_RATIO
        else:
            self._at_most = size

    def require(self, count: int) -> None:
        """Check that ``count`` bytes can be in the file, before time or memory is spent on them.

        Raises:
            DataError: it is too small for them, however well they were packed.
        """
        if count > self._at_most:
            raise self._short()

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes.

        Raises:
            DataError: there are fewer, or the gzip stream is damaged.
        """
        return self.read_array(count, np.dtype(np.uint8)).tobytes()

    def read_array(self, count: int, dtype: np.dtype) -> np.ndarray:
        """``count`` values of ``dtype`` in one flat array that can be written to.

        Raises:
            DataError: there are fewer, or the gzip stream is damaged.
        """
        self.require(count * dtype.itemsize)
        values = np.empty(count, dtype)
        self._fill(memoryview(values.view(np.uint8).data))
        return values

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes.

        Raises:
            DataError: as for :meth:`read`.
        """
        scratch = memoryview(bytearray(min(count, _CHUNK_BYTES)))
        while count:
            piece = scratch[: min(count, len(scratch))]
            self._fill(piece)
            count -= len(piece)

    def expect_end(self) -> None:
        """Check that nothing follows; for gzip this also compares the checksum of what was inflated.

        Raises:
            DataError: something follows, or the checksum differs.
        """
        if self._read_into(memoryview(bytearray(1))):
            raise DataError(f"{self._what} holds more bytes than its header describes")

    def _fill(self, target: memoryview) -> None:
        while len(target):
            filled = self._read_into(target[:_CHUNK_BYTES])
            if not filled:
                raise self._short()
            target = target[filled:]

    def _read_into(self, target: memoryview) -> int:
        try:
            return int(self._stream.readinto(target))
        except Exception as error:  # zlib, isal and gzip each have their own
            raise DataError(f"{self._what} is a damaged gzip file ({type(error).__name__})") from None

    def _short(self) -> DataError:
        return DataError(f"{self._what} is cut short: it holds fewer bytes than its header describes")
