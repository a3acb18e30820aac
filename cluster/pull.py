"""Copying a model out of the registry so that it is either there and right, or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster.digests import FileDigest
from cluster.errors import RegistryError
from cluster.transfer import check_location, download
from data_shards.support.disk import FULL, is_full_disk
from data_shards.support.files import sync_tree


def fetch(tracking_uri: str, location: str, files: Mapping[str, FileDigest], destination: Path, reference: str) -> Path:
    """Download ``files`` into ``destination``.

    They are collected in a hidden folder beside it, which becomes ``destination`` by one rename when every SHA-256 is
    right. A pull that was interrupted, that lost its server or that filled the disk leaves the hidden folder, and the
    next one keeps the files in it that are complete. Of a file that was half there it asks only for the rest, unless
    the disk was full: that file is dropped. A ``destination`` that already holds exactly these files is returned as it
    is.

    Args:
        tracking_uri: the store.
        location: the artifact URI of the bundle.
        files: what each file must hold.
        destination: the folder to make.
        reference: what the user called the model, for messages.

    Raises:
        RegistryError: ``destination`` is taken, another pull into it is running, the disk has no room, a file cannot be
            fetched, it is not what was published (nothing is left behind then), or it lies on another host.
    """
    check_location(tracking_uri, location)
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
            for name in missing:
                (partial / name).parent.mkdir(exist_ok=True)
                if not _complete(tracking_uri, location, name, files[name], partial):
                    shutil.rmtree(partial, ignore_errors=True)
                    raise RegistryError(
                        f"{reference}: {name} is damaged in the registry: its SHA-256 is not the published "
                        f"{files[name].sha256[:12]}...; nothing was written to {destination}"
                    )
            sync_tree(partial)
            os.replace(partial, destination)
    except _Unfetched as problem:
        raise RegistryError(f"{problem}{_kept(partial, files)}") from problem.__cause__
    except OSError as error:
        if is_full_disk(error):  # Others need its last bytes more than the next pull does.
            for name, digest in files.items():
                _begun(partial, name, digest).unlink(missing_ok=True)
        rest = _kept(partial, files)
        raise RegistryError(f"cannot pull {reference} into {destination}: {error.strerror or error}{rest}") from error
    return destination


class _Unfetched(RegistryError):
    """A file that did not come, or not all of it."""


def _complete(tracking_uri: str, location: str, name: str, digest: FileDigest, partial: Path) -> bool:
    """Fetch what is missing of a file; whether it is then what was published."""
    path = _begun(partial, name, digest)
    for went_on in (path.exists(), False):
        if not path.exists() or path.stat().st_size < digest.size_bytes:
            try:
                download(tracking_uri, location, name, path)
            except RegistryError as error:
                raise _Unfetched(str(error)) from error
        if digest.matches(path):
            os.replace(path, partial / name)
            return True
        if not went_on:
            return False
        path.unlink()  # What was there may be at fault, as after a power cut.
    return False


def _begun(partial: Path, name: str, digest: FileDigest) -> Path:
    """Where the beginning of a file lies; the name says of which one, so that it is never taken for another's."""
    return partial / f"{name}.{digest.sha256[:16]}.part"


def _require_room(
    partial: Path, missing: Sequence[str], files: Mapping[str, FileDigest], reference: str, destination: Path
) -> None:
    """See that what is missing fits on the disk, before it is fetched: that may take long."""
    needed, free = 0, shutil.disk_usage(partial).free
    for name in missing:
        begun = _begun(partial, name, files[name])
        needed += max(files[name].size_bytes - (begun.stat().st_size if begun.is_file() else 0), 0)
    if needed > free:
        rest = _kept(partial, files)
        raise RegistryError(
            f"cannot pull {reference} into {destination}: {FULL}: {needed} bytes are needed, {free} are free{rest}"
        )


def _kept(partial: Path, files: Mapping[str, FileDigest]) -> str:
    """Say what of an unfinished pull the next one goes on with; leave no folder without any of it."""
    if not partial.is_dir():
        return ""
    _discard_others(partial, files)
    for path in sorted(partial.rglob("*"), reverse=True):  # what a folder holds before the folder
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if not any(partial.iterdir()):
        partial.rmdir()
        return ""
    return f"; what has come is kept in {partial}, and the next pull goes on from there"


def _discard_others(folder: Path, files: Mapping[str, FileDigest]) -> None:
    """Remove what does not belong: the hidden folder may be the rest of a pull of another model."""
    folders = {name.rpartition("/")[0] for name in files}
    begun = {_begun(folder, name, digest).relative_to(folder).as_posix() for name, digest in files.items()}
    for entry in sorted(folder.rglob("*")):
        name = entry.relative_to(folder).as_posix()
        if entry.is_dir() and not entry.is_symlink():
            if name not in folders:
                shutil.rmtree(entry)
        elif entry.parent.is_dir() and (entry.is_symlink() or name not in begun | set(files)):
            entry.unlink(missing_ok=True)
        elif name in files and entry.stat().st_size != files[name].size_bytes:
            entry.unlink()


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
