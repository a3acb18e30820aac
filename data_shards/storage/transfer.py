"""Fetching one file over a connection that breaks off, stalls or lies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from data_shards.storage.base import StoredFile
from data_shards.storage.faults import Interrupted, Mismatch, Refused
from data_shards.support.errors import DataError

# Makes a generator of the bytes from an offset on, given the size of the file where it is known; closing it ends the
# request. It raises the three errors of :mod:`data_shards.storage.faults`.
Chunks = Callable[[int, int | None], Generator[bytes, None, None]]

# An attempt that brings at least this much (or the end) does not count as fruitless.
PROGRESS_BYTES = 1 << 20


@dataclass(frozen=True)
class Retries:
    """How patient a transfer is.

    Attributes:
        attempts: fruitless attempts in a row after which it fails; one that brings a mebibyte or more is not
            fruitless, so a long file survives any number of dropped connections.
        stall_s: seconds without a byte after which a request is given up.
        pause_s: pause before the second attempt; it doubles with each fruitless one.
        longest_pause_s: bound of the pause. The pauses are random between half and all of their length, so that the
            nodes of a cluster do not come back at the same moment.
    """

    attempts: int = 8
    stall_s: float = 30.0
    pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause(self, fruitless: int) -> None:
        """Sleep before the next attempt, after ``fruitless`` ones in a row."""
        longest_s = min(self.longest_pause_s, self.pause_s * 2.0 ** max(0, fruitless - 1))
        time.sleep(longest_s * random.uniform(0.5, 1.0))


def download(chunks: Chunks, descriptor: int, file: StoredFile, what: str, retries: Retries) -> None:
    """Bring the file behind ``descriptor`` to the content that the manifest lists.

    What it holds already is taken for the beginning and kept, every byte that arrives is kept at once, so hardly
    anything is transferred twice, whoever was interrupted. The SHA-256 decides at the end; a file that fails it is
    emptied and fetched once more.

    Args:
        chunks: the transport.
        descriptor: open for reading and writing; its content may be the beginning of the file, or any other.
        file: what it is to become.
        what: the address, for messages.
        retries: how patient to be.

    Raises:
        DataError: it cannot be fetched, or is not what the manifest says. What arrived is left for the next time, but
            for bytes that are known to be wrong.
        OSError: the disk refuses.
    """
    digest, got = _digest_of(descriptor)
    attempts = fruitless = 0
    wrong = False
    while True:
        before, attempts = got, attempts + 1
        try:
            if got < file.size:
                with contextlib.closing(chunks(got, file.size)) as pieces:
                    for piece in pieces:
                        if got + len(piece) > file.size:
                            raise Mismatch(f"the server has more than the {file.size} bytes of the manifest")
                        _write(descriptor, piece)
                        digest.update(piece)
                        got += len(piece)
            if got < file.size:
                raise Interrupted("the connection ended in the middle of the file")
            if digest.hexdigest() != file.sha256:
                raise Mismatch("its SHA-256 is not the one in the manifest")
            return
        except Refused as problem:
            raise DataError(f"{what}: {problem}") from None
        except Mismatch as problem:
            os.ftruncate(descriptor, 0)
            digest, got = _digest_of(descriptor)
            if wrong:
                raise DataError(
                    f"{what}: {problem}, fetched twice: it was changed on the server or is damaged"
                ) from None
            wrong = True
        except Interrupted as problem:
            fruitless = 0 if got - before >= PROGRESS_BYTES else fruitless + 1
            if fruitless >= retries.attempts:
                raise DataError(
                    f"{what}: {got} of {file.size} bytes after {attempts} attempts; the last one: {problem}"
                ) from None
        retries.pause(fruitless)


def read_small(chunks: Chunks, limit: int, what: str, retries: Retries) -> bytes:
    """The whole of a small file of unknown size.

    Raises:
        DataError: it cannot be fetched or is larger than ``limit``.
    """
    for attempt in range(1, retries.attempts + 1):
        content = bytearray()
        try:
            with contextlib.closing(chunks(0, None)) as pieces:
                for piece in pieces:
                    content += piece
                    if len(content) > limit:
                        raise DataError(f"{what}: more than {limit} bytes, expected a small file")
            return bytes(content)
        except Refused as problem:
            raise DataError(f"{what}: {problem}") from None
        except (Interrupted, Mismatch) as problem:
            last = f"{what}: cannot be read after {attempt} attempts; the last one: {problem}"
        if attempt < retries.attempts:
            retries.pause(attempt)
    raise DataError(last)


def _digest_of(descriptor: int) -> tuple[hashlib._Hash, int]:
    """The digest of what the file holds, and its size; the descriptor is left at the end."""
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256"), file.tell()


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
