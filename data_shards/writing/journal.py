"""The folder of a build that is not finished, and the note in it that lets the build go on after it was cut off."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from data_shards.support.errors import DataError, MedformerError
from data_shards.support.files import put_in_place, read_json, sync_tree, write_json

NOTE = "build.json"
_LOCK = "build.lock"


class BuildFolder:
    """A hidden folder beside the one that is to appear.

    Attributes:
        path: the hidden folder.
        note: what the last :meth:`commit` wrote, empty for a new build.
    """

    def __init__(self, path: Path, note: dict[str, Any], fingerprint: str) -> None:
        self.path = path
        self.note = note
        self._fingerprint = fingerprint

    def commit(self, note: dict[str, Any]) -> None:
        """Make ``note`` the state from which a later run goes on; all that it speaks of is on the disk already."""
        write_json(self.path / NOTE, {"fingerprint": self._fingerprint, "note": note})
        self.note = note

    @property
    def complete(self) -> bool:
        """Whether an earlier run got as far as :meth:`finish`."""
        return "complete" in self.note

    def finish(self, names: Collection[str]) -> None:
        """The dataset consists of the files ``names``; what else is here is not needed any more."""
        sync_tree(self.path)
        self.commit({"complete": sorted(names)})

    def keep(self, names: Collection[str] = ()) -> None:
        """Delete all but the files ``names``, also what a killed process left half-written."""
        for inner in self.path.iterdir():
            if inner.name not in (NOTE, _LOCK, *names):
                _delete(inner)


def fingerprint(*parts: Any) -> str:
    """What tells one build from another: a digest of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def build_folder(out: Path, mark: str, *, restart: bool = False) -> Iterator[BuildFolder]:
    """The folder to build in, which becomes ``out`` when the block ends without an error.

    The block calls :meth:`BuildFolder.finish` last.
    When the block fails, the folder is kept if there was a :meth:`BuildFolder.commit`, so that the same build can go
    on, and removed if there was none.

    Args:
        out: where the complete folder is to appear; replaced when it exists.
        mark: :func:`fingerprint` of the build.
        restart: throw away what an earlier run left.

    Raises:
        MedformerError: another process builds there now, an unfinished build of something else stands there, or the
            disk refuses.
    """
    path = _folder_of(out)
    alone = not out.parent.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open(path / _LOCK, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MedformerError(f"{out}: another process is building it") from None
            folder = BuildFolder(path, {} if restart else _note(path, mark), mark)
            if not folder.note:
                _empty(path)
            try:
                yield folder
            except BaseException:
                if not folder.note:
                    shutil.rmtree(path)
                    if alone:
                        with contextlib.suppress(OSError):  # not empty: somebody else builds there
                            out.parent.rmdir()
                raise
            folder.keep(folder.note["complete"])
            # Note and lock go last: until the name is there, a run that is cut off can go on, and no other can begin.
            put_in_place(path, out)
            (out / NOTE).unlink()
            (out / _LOCK).unlink()
    except OSError as error:
        raise MedformerError(f"cannot write {out}: {error.strerror or error}") from error


def building(out: Path) -> bool:
    """Whether an unfinished build of ``out`` is there, which can go on."""
    return (_folder_of(out) / NOTE).exists()


def _folder_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.building")


def _note(path: Path, mark: str) -> dict[str, Any]:
    if not (path / NOTE).exists():
        return {}
    try:
        content = read_json(path / NOTE, DataError)
    except DataError:
        return {}
    if content.get("fingerprint") != mark:
        raise MedformerError(
            f"{path}: an unfinished build of another source or with other options; finish it with the same ones, or "
            "throw it away with --restart"
        )
    return dict(content["note"])


def _empty(path: Path) -> None:
    # The note first: it must not speak of files that are gone.
    (path / NOTE).unlink(missing_ok=True)
    for inner in path.iterdir():
        if inner.name != _LOCK:
            _delete(inner)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
