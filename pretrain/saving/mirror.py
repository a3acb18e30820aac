"""Copies of complete checkpoints behind any URL that fsspec knows: complete, or not there.

A checkpoint is sent file by file, the file with the digests last: without it, it is not there. What is fetched lands
under a hidden name, is compared with the digests, and is renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from data_shards.storage.address import protocol_of
from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.secrets import shown
from pretrain.checkpoint import DIGESTS, STATE, Checkpoint, CheckpointStore, numbers_of

_PROBE = ".writable"


@dataclass(frozen=True)
class Copy:
    """A complete copy.

    Attributes:
        mirror: where it lies.
        name: of its folder.
        step: optimizer steps that were taken.
        attempt: of the run that wrote it.
    """

    mirror: Mirror
    name: str
    step: int
    attempt: int

    def state(self) -> dict[str, Any]:
        """What the engine noted beside the tensors.

        Raises:
            CheckpointError: it cannot be read.
        """
        return self.mirror.state(self.name)

    def fetch(self, store: CheckpointStore) -> Checkpoint:
        """Bring it into the folder of the run.

        Raises:
            CheckpointError: a file is missing, or is not the one that was sent; nothing is left here.
        """
        return self.mirror.fetch(self, store)


class Mirror:
    """The folder of copies of one run.

    Args:
        url: in the notation of fsspec, such as ``s3://bucket/run`` or ``file:///mnt/other/run``; options such as
            credentials come from fsspec's own configuration.

    Raises:
        ConfigError: fsspec does not know the protocol, or the package that brings it is missing.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = shown(url).rstrip("/")
        try:
            self._files, root = url_to_fs(url)
        except ImportError as error:
            raise ConfigError(
                f"checkpoint.to: the package that writes {protocol_of(url)}:// is missing: {error}"
            ) from None
        except Exception as error:  # each file system checks its address in its own way
            raise ConfigError(f"checkpoint.to: fsspec cannot open {self.url} ({_said(error)})") from None
        self._root = root.rstrip("/")

    def check_writable(self) -> None:
        """See that something can be written there, before a run depends on it.

        Raises:
            ConfigError: it cannot.
        """
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._path(_PROBE), b"")
            self._files.rm_file(self._path(_PROBE))
        except Exception as error:  # of any file system, in its own words
            raise ConfigError(f"checkpoint.to: {self.url} cannot be written ({_said(error)})") from None

    def complete(self) -> list[Copy]:
        """Every complete copy, oldest first.

        Raises:
            CheckpointError: the folder cannot be listed.
        """
        found = [Copy(self, name, *number) for name, number in self._folders() if self._digests(name) is not None]
        return sorted(found, key=lambda each: (each.step, each.attempt))

    def state(self, name: str) -> dict[str, Any]:
        """See :meth:`Copy.state`."""
        try:
            state: dict[str, Any] = json.loads(self._files.cat_file(self._path(name, STATE)))
        except Exception as error:
            raise CheckpointError(f"{self.url}/{name}/{STATE}: not readable ({_said(error)})") from None
        return state

    def send(self, checkpoint: Checkpoint) -> None:
        """Copy a complete checkpoint; what was there of it before is overwritten.

        Raises:
            CheckpointError: it cannot be sent; what is there of it does not count.
        """
        name = checkpoint.folder.name
        try:
            digests = json.loads((checkpoint.folder / DIGESTS).read_text())
            for file in [*digests, DIGESTS]:
                local, remote = checkpoint.folder / file, self._path(name, file)
                self._files.makedirs(remote.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(local), remote)
                if (size := self._files.size(remote)) != local.stat().st_size:
                    raise OSError(f"{file} has {size} bytes there, {local.stat().st_size} here")
        except Exception as error:
            raise CheckpointError(f"{name} cannot be copied to {self.url} ({_said(error)})") from None

    def remove(self, name: str) -> None:
        """Remove a copy; the file that makes it complete goes first.

        Raises:
            CheckpointError: it cannot be removed.
        """
        try:
            if self._files.exists(self._path(name, DIGESTS)):
                self._files.rm_file(self._path(name, DIGESTS))
            self._files.rm(self._path(name), recursive=True)
        except Exception as error:
            raise CheckpointError(f"{self.url}/{name} cannot be removed ({_said(error)})") from None

    def torn(self) -> list[str]:
        """Names of the folders without the file that makes them complete."""
        return [name for name, _ in self._folders() if self._digests(name) is None]

    def fetch(self, copy: Copy, store: CheckpointStore) -> Checkpoint:
        """See :meth:`Copy.fetch`."""
        partial = store.partial(copy.step, copy.attempt)
        shutil.rmtree(partial, ignore_errors=True)
        digests = self._digests(copy.name) or {}
        try:
            partial.mkdir(parents=True)
            for file in digests:
                local = partial / _inside(file)
                local.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(self._path(copy.name, file), str(local))
            fetched = Checkpoint(partial, copy.step, copy.attempt)
            (partial / DIGESTS).write_text(json.dumps(digests))
            fetched.verify()
            return store.commit(copy.step, copy.attempt, digests)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            damage = (
                "damaged: a file is not the one that was sent" if isinstance(error, CheckpointError) else _said(error)
            )
            raise CheckpointError(
                f"{self.url}/{copy.name} cannot be fetched ({damage}); remove it to go on from the one before it"
            ) from None

    def _folders(self) -> list[tuple[str, tuple[int, int]]]:
        try:
            listed = self._files.ls(self._root, detail=False) if self._files.exists(self._root) else []
        except Exception as error:
            raise CheckpointError(f"checkpoint.to: {self.url} cannot be listed ({_said(error)})") from None
        names = [PurePosixPath(path).name for path in listed]
        return [(name, number) for name in names if (number := numbers_of(name)) is not None]

    def _digests(self, name: str) -> Mapping[str, str] | None:
        """The digests of a copy; None when they are not there, or only in part."""
        try:
            found = json.loads(self._files.cat_file(self._path(name, DIGESTS)))
        except FileNotFoundError:
            return None
        except ValueError:
            return None
        except Exception as error:
            raise CheckpointError(f"{self.url}/{name}: not readable ({_said(error)})") from None
        return found if isinstance(found, dict) else None

    def _path(self, *names: str) -> str:
        return "/".join([self._root, *names])


def _inside(name: str) -> PurePosixPath:
    """The path of a file below the folder of a checkpoint; what comes from elsewhere must not lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise OSError(f"{name!r} is no name of a file of a checkpoint")
    return path


def _said(error: Exception) -> str:
    words = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
