"""Copying a model out of the registry so that it is either there and right, or not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster.digests import FileDigest
from cluster.errors import RegistryError
from cluster.store import first_line
from data_shards.support.disk import FULL, is_full_disk
from data_shards.support.files import sync_tree


def fetch(tracking_uri: str, location: str, files: Mapping[str, FileDigest], destination: Path, reference: str) -> Path:
    """Download ``files`` into ``destination``.

    They are collected in a hidden folder beside it, which becomes ``destination`` by one rename when every SHA-256 is
    right. A pull that was interrupted, or that filled the disk, leaves the hidden folder, and the next one keeps the
    files in it that are complete. A ``destination`` that already holds exactly these files is returned as it is.

    Args:
        tracking_uri: the store.
        location: the artifact URI of the bundle.
        files: what each file must hold.
        destination: the folder to make.
        reference: what the user called the model, for messages.

    Raises:
        RegistryError: ``destination`` is taken, another pull into it is running, the disk has no room, a file cannot be
            fetched, or it is not what was published; nothing is left behind then.
    """
    destination = destination.absolute()
    if destination.exists():
        if destination.is_dir() and all(digest.matches(destination / name) for name, digest in files.items()):
            return destination
        raise RegistryError(f"{destination} exists already and is not {reference}; choose another folder")
    partial = destination.with_name(f".{destination.name}.pull.partial")
    try:
        with _locked(partial, destination):
            _discard_others(partial, files)
            missing = [name for name, digest in files.items() if not digest.matches(partial / name)]
            _require_room(partial, missing, files, reference, destination)
            for name, digest in files.items():
                if name in missing:
                    folder = (partial / name).parent
                    folder.mkdir(exist_ok=True)
                    _download(tracking_uri, f"{location.rstrip('/')}/{name}", folder)
                if not digest.matches(partial / name):
                    shutil.rmtree(partial, ignore_errors=True)
                    raise RegistryError(
                        f"{reference}: {name} is damaged in the registry: its SHA-256 is not the published "
                        f"{digest.sha256[:12]}...; nothing was written to {destination}"
                    )
            sync_tree(partial)
            os.replace(partial, destination)
    except OSError as error:
        rest = _kept(partial, files)
        raise RegistryError(f"cannot pull {reference} into {destination}: {error.strerror or error}{rest}") from error
    return destination


def _require_room(
    partial: Path, missing: Sequence[str], files: Mapping[str, FileDigest], reference: str, destination: Path
) -> None:
    """See that what is missing fits on the disk, before it is fetched: that may take long."""
    # A file that is there and wrong is replaced, so that its room counts as free.
    replaced = sum(path.stat().st_size for name in missing if (path := partial / name).is_file())
    needed, free = sum(files[name].size_bytes for name in missing), shutil.disk_usage(partial).free + replaced
    if needed > free:
        rest = _kept(partial, files)
        raise RegistryError(
            f"cannot pull {reference} into {destination}: {FULL}: {needed} bytes are needed, {free} are free{rest}"
        )


def _kept(partial: Path, files: Mapping[str, FileDigest]) -> str:
    """Drop what is half there, and say what of an unfinished pull the next one goes on with."""
    if not partial.is_dir():
        return ""
    for path in sorted(partial.rglob("*"), reverse=True):  # what a folder holds before the folder
        name = path.relative_to(partial).as_posix()
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and (name not in files or path.stat().st_size != files[name].size_bytes):
            path.unlink()
    if not any(partial.iterdir()):
        partial.rmdir()
        return ""
    return f"; the files that are complete are kept in {partial}, and the next pull goes on from them"


def _download(tracking_uri: str, artifact_uri: str, folder: Path) -> None:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        download_artifacts(artifact_uri=artifact_uri, dst_path=str(folder), tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        if is_full_disk(error):
            raise OSError(errno.ENOSPC, FULL) from error
        raise RegistryError(f"cannot fetch {artifact_uri}: {first_line(error)}") from error


def _discard_others(folder: Path, files: Mapping[str, FileDigest]) -> None:
    """Remove what does not belong: the hidden folder may be the rest of a pull of another model."""
    folders = {name.rpartition("/")[0] for name in files}
    for entry in sorted(folder.rglob("*")):
        name = entry.relative_to(folder).as_posix()
        if entry.is_dir() and not entry.is_symlink():
            if name not in folders:
                shutil.rmtree(entry)
        elif (name not in files or entry.is_symlink()) and entry.parent.is_dir():
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, destination: Path) -> Iterator[None]:
    """Make ``folder`` and hold it alone; the lock dies with the process, however that ends."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RegistryError(f"another pull into {destination} is running") from None
            # Between opening and locking, the pull before us may have renamed this very folder into place.
            if folder.exists() and os.fstat(descriptor).st_ino == folder.stat().st_ino:
                yield
                return
        finally:
            os.close(descriptor)
