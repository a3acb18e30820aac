"""A first look at many files: what kind of image each holds, and the headers of DICOM files.

Parsing a header takes a thousand times as long as opening the file, nearly all of it in Python: so it is done by
processes, and what was found is kept for a build that is taken up again.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from data_shards.sources.images.dicom.headers import Header, Unusable, read_header
from data_shards.sources.images.kinds import Kind, kind_of
from data_shards.sources.images.quiet import silent_libraries
from data_shards.sources.listing import Listing
from data_shards.support.errors import MedformerError
from data_shards.support.files import write_atomic
from data_shards.support.orphans import end_with_parent
from data_shards.support.sealed import seal, unseal

# Starting a process takes as long as parsing some hundred headers.
_FEW = 256
_PART = 64


@dataclass(frozen=True)
class Look:
    """What a first look at one file says.

    Attributes:
        kind: of the image in it; None when there is none.
        reason: why there is none.
        lost: whether it could not be opened, so that nobody knows what is in it.
        header: of a DICOM file.
    """

    kind: Kind | None
    reason: str = ""
    lost: bool = False
    header: Header | Unusable | None = None


@dataclass(frozen=True)
class _Kept:
    """A look, and what the file was like then."""

    size: int
    modified_ns: int
    look: Look


_LISTING = TypeAdapter(dict[str, _Kept])


def look_at(path: Path) -> Look:
    """Look at one file."""
    kind, reason = kind_of(path)
    if kind is None:
        return Look(None, reason, lost=not os.access(path, os.R_OK))
    return Look(kind, reason, header=read_header(path) if kind == "dicom" else None)


def looks_at(paths: Sequence[Path], listing: Listing, name: str, secret: str) -> list[Look]:
    """Look at many files, in the order of ``paths``.

    Args:
        paths: absolute, or relative to the working directory.
        listing: how many processes may be used, and where looks are kept.
        name: of the dataset.
        secret: with which they are sealed. Of a file that has size and time of change of then, the look of then counts.
    """
    marks = [_mark(path) for path in paths]
    file = listing.file(name) if len(paths) >= _FEW else None
    kept = {} if file is None else _read(file, secret)
    found: list[Look | None] = []
    for path, mark in zip(paths, marks, strict=True):
        known = kept.get(_digest(path)) if mark is not None else None
        found.append(known.look if known and (known.size, known.modified_ns) == mark else None)
    missing = [path for path, look in zip(paths, found, strict=True) if look is None]
    new = iter(_look_at_all(missing, listing.workers))
    looks = [next(new) if look is None else look for look in found]
    if file is not None:
        listing.names.add(name)
    if file is not None and missing:
        content = {
            _digest(path): _Kept(*mark, look)
            for path, mark, look in zip(paths, marks, looks, strict=True)
            if mark is not None
        }
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MedformerError(f"cannot write {file.parent}: {error.strerror or error}") from None
        write_atomic(file, seal(zlib.compress(_LISTING.dump_json(content), 1), secret), private=True)
    return looks


def _look_at_all(paths: Sequence[Path], workers: int) -> list[Look]:
    if workers < 2 or len(paths) < _FEW:
        return _look_at_part(paths)
    # A new interpreter for each: a fork would copy locks that threads of this one may hold.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    parts = [paths[start : start + _PART] for start in range(0, len(paths), _PART)]
    with ProcessPoolExecutor(min(workers, len(parts)), context, _begin) as pool:
        try:
            return [look for part in pool.map(_look_at_part, parts) for look in part]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who was asked to build answers it


def _look_at_part(paths: Sequence[Path]) -> list[Look]:
    with silent_libraries():
        return [look_at(path) for path in paths]


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    return hashlib.blake2b(os.fsencode(path.absolute()), digest_size=16).hexdigest()


def _read(file: Path, secret: str) -> dict[str, _Kept]:
    """What was kept; nothing when the file is not there, of another secret, or of another version of this program."""
    try:
        content = unseal(file.read_bytes(), secret)
    except OSError:
        return {}
    if content is None:
        return {}
    try:
        return _LISTING.validate_json(zlib.decompress(content))
    except (ValidationError, zlib.error):
        return {}
