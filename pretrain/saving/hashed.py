"""Writing tensors into a file whose digest is taken on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch

_PIECE = 16 << 20


class Abandoned(Exception):
    """The run has ended in the middle of a file."""


class HashedFile:
    """A file to be written from its beginning to its end, with the SHA-256 of what was written.

    Args:
        path: the file; made anew.
        abandoned: asked before each piece of it; an answer of true ends the writing.
    """

    def __init__(self, path: Path, abandoned: Callable[[], bool]) -> None:
        self.error: OSError | Abandoned | None = None
        self._abandoned = abandoned
        self._digest = hashlib.sha256()
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  (closed by seal or close)

    def write(self, content: bytes | memoryview) -> int:
        """Write all of ``content``; hashing and writing let the other threads go on."""
        view = memoryview(content).cast("B")
        try:
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE]
                if self._abandoned():
                    raise Abandoned
                self._digest.update(piece)
                while piece:
                    piece = piece[self._file.write(piece) :]
        except (OSError, Abandoned) as error:
            self.error = error  # torch turns it into a RuntimeError without a reason
            raise
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered."""

    def seal(self) -> str:
        """Flush the file to the disk and close it; its digest, as 64 hexadecimal digits."""
        os.fsync(self._file.fileno())
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


def save_hashed(content: Any, path: Path, abandoned: Callable[[], bool] = lambda: False) -> str:
    """``torch.save`` to a file that is on the disk afterwards; its SHA-256.

    Args:
        content: what is saved.
        path: the file.
        abandoned: see :class:`HashedFile`.

    Raises:
        OSError: the disk refuses.
        Abandoned: it was.
    """
    file = HashedFile(path, abandoned)
    try:
        torch.save(content, cast(IO[bytes], file))  # only write and flush are called
        return file.seal()
    except RuntimeError:
        if file.error is not None:
            raise file.error from None
        raise
    finally:
        file.close()
