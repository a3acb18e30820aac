"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import MedformerError


def home_folder() -> Path:
    """Where Medformer keeps what is the user's: ``$MEDFORMER_HOME``, else the data folder by the XDG convention."""
    home = os.environ.get("MEDFORMER_HOME")
    if home:
        return Path(home).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser().absolute() / "medformer"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Write ``content`` to ``path``: afterwards the file holds all of it, or is what it was before.

    Args:
        path: the file.
        content: all of it; text is written as UTF-8.
        private: only the owner may read the file.

    Raises:
        MedformerError: the file cannot be written (no space, no permission); nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with open(partial, "wb", opener=_private if private else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise_out_of_files(error)
        raise MedformerError(f"cannot write {path}: {error.strerror or error}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically, keys in order, so that equal documents are equal files."""
    write_atomic(path, json.dumps(document, indent=2, sort_keys=True) + "\n")


def finite(document: Any) -> Any:
    """The document with NaN and infinity as null, which is all that JSON has for them."""
    if isinstance(document, dict):
        return {str(key): finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    if isinstance(document, float) and not math.isfinite(document):
        return None
    return document


def read_json(path: Path, error: type[MedformerError]) -> dict[str, Any]:
    """A JSON document whose top is a mapping.

    Args:
        path: the file.
        error: what to raise when it is not one.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise_out_of_files(problem)
        raise error(f"{path}: not readable JSON: {problem}") from None
    if not isinstance(document, dict):
        raise error(f"{path}: expected a JSON mapping, found {type(document).__name__}")
    return document


def sync_tree(folder: Path) -> None:
    """Flush every file and directory below ``folder`` to the disk."""
    for root, _, names in os.walk(folder):
        for name in [*names, ""]:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def refuse_existing(path: Path, *, overwrite: bool, file: bool = False) -> None:
    """See that something can be written to a path, before the work for it is done.

    Args:
        path: where it is to appear.
        overwrite: whether what stands there is replaced.
        file: whether it is a file, whose folder has to be there; a folder gets those above it.

    Raises:
        MedformerError: something stands there, or nothing can be made there.
    """
    if path.exists() and not overwrite:
        raise MedformerError(f"{path} exists already; choose another place or pass --overwrite")
    if file and path.is_dir():
        raise MedformerError(f"{path}: a folder; expected the name of a file")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise MedformerError(f"cannot write {path}: {above} is a file")
    if file and above != path.absolute().parent:
        raise MedformerError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise MedformerError(f"cannot write {path}: {above} may not be written to")


def put_in_place(partial: Path, path: Path) -> None:
    """Flush the folder ``partial`` and rename it to ``path``; what stood there is removed afterwards."""
    sync_tree(partial)
    retired = partial.with_suffix(".retired")
    if path.exists():
        if retired.exists():  # of a process that was killed while it removed it
            shutil.rmtree(retired)
        os.replace(path, retired)
    os.replace(partial, path)
    if retired.exists():
        shutil.rmtree(retired)


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder that appears at ``path`` complete, or not at all.

    The block fills a hidden folder beside ``path``; when it ends without an error the folder is renamed into place,
    otherwise it is removed.

    Args:
        path: where the folder is to appear.
        overwrite: replace what stands there; the default refuses.

    Yields:
        The hidden folder to fill.

    Raises:
        MedformerError: ``path`` exists and ``overwrite`` is false, or the disk refuses.
    """
    refuse_existing(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    lock = None
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        partial.mkdir()
        lock = _locked(partial)
        yield partial
        put_in_place(partial, path)
    except OSError as error:
        _remove(partial, missing)
        raise MedformerError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        _remove(partial, missing)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _remove(partial: Path, parents: list[Path]) -> None:
    """Remove a folder with all that is in it, and those above it that were made for it, unless others use them."""
    shutil.rmtree(partial, ignore_errors=True)
    for parent in parents:
        with contextlib.suppress(OSError):  # not empty, or never made
            parent.rmdir()


def _locked(folder: Path) -> int | None:
    """A descriptor of a folder, locked until it is closed or its process ends; None when it is in use."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody uses it, or the file system has no locks for folders
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(path: Path) -> None:
    """Remove the hidden folders that killed processes have left beside ``path``."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.partial"):
        with contextlib.suppress(OSError):  # gone already, or somebody else's
            lock = _locked(partial)
            if lock is not None:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(lock)
