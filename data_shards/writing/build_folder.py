"""The folder of a build that is not finished, with the journal from which the build goes on after it was cut off."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import MedformerError
from data_shards.support.files import put_in_place, sync_tree
from data_shards.writing.journal import Journal

JOURNAL = "build.journal"
_LOCK = "build.lock"
# What earlier versions wrote instead of the journal.
_OLD_NOTE = "build.json"


class BuildFolder:
    """A hidden folder beside the one that is to appear.

    Attributes:
        path: the hidden folder.
        dropped: what :meth:`begin` was given, by this run or by the one that was cut off.
        commits: what was given to :meth:`commit` since, by the run that was cut off.
        complete: what was given to :meth:`finish`.
    """

    def __init__(self, path: Path, fingerprint: str, journal: Journal | None = None) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._journal = journal
        records = journal.records if journal is not None else [{}]
        self.dropped: list[int] = records[0].get("dropped", [])
        self.complete: list[str] | None = records[-1].get("complete")
        self.commits: list[dict[str, Any]] = [record for record in records[1:] if "complete" not in record]

    def begin(self, dropped: Sequence[int]) -> None:
        """Forget all commits: the build begins anew, without the samples at the positions ``dropped``."""
        self.dropped, self.commits = list(dropped), []
        self._journal = Journal.begun(self.path / JOURNAL, {"build": self._fingerprint, "dropped": self.dropped})

    def commit(self, record: dict[str, Any]) -> None:
        """Add a step to those from which a later run goes on; all that it speaks of is on the disk already."""
        if self._journal is None:
            self.begin([])
        assert self._journal is not None
        _sync_names(self.path)
        self._journal.add(record)

    @property
    def kept(self) -> bool:
        """Whether there is anything from which a later run could go on."""
        return self._journal is not None

    def finish(self, names: Collection[str]) -> None:
        """The dataset consists of the files ``names``; what else is here is not needed any more."""
        sync_tree(self.path)
        self.complete = sorted(names)
        self.commit({"complete": self.complete})

    def keep(self, names: Collection[str] = ()) -> None:
        """Delete all but the files ``names``, also what a killed process left half-written."""
        wanted = {JOURNAL, _LOCK, *names}
        for inner in self.path.iterdir():
            if inner.name not in wanted:
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
        MedformerError: another process builds there now, an unfinished build of something else stands there, its
            journal is damaged, or the disk refuses.
    """
    path = out.with_name(f".{out.name}.building")
    alone = not out.parent.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open(path / _LOCK, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MedformerError(f"{out}: another process is building it") from None
            folder = BuildFolder(path, mark, None if restart else _journal(path, mark))
            if not folder.kept:
                _empty(path)
            try:
                yield folder
            except BaseException:
                if not folder.kept:
                    shutil.rmtree(path)
                    if alone:
                        with contextlib.suppress(OSError):  # not empty: somebody else builds there
                            out.parent.rmdir()
                raise
            folder.keep(folder.complete or ())
            # Journal and lock go last: until the name is there, a run that is cut off can go on and no other begins.
            put_in_place(path, out)
            (out / JOURNAL).unlink()
            (out / _LOCK).unlink()
    except OSError as error:
        raise_out_of_files(error)
        raise MedformerError(f"cannot write {out}: {error.strerror or error}") from error


def _journal(path: Path, mark: str) -> Journal | None:
    """The journal of the build that was cut off; None when there was none, or it did not get as far as a commit."""
    if (path / _OLD_NOTE).exists():
        raise MedformerError(
            f"{path}: an unfinished build of an earlier version of Medformer, which this one cannot go on with; throw "
            "it away with --restart"
        )
    if not (path / JOURNAL).exists():
        return None
    journal = Journal.read(path / JOURNAL)
    if not journal.records:
        return None
    if journal.records[0].get("build") != mark:
        raise MedformerError(
            f"{path}: an unfinished build of another source or with other options; finish it with the same ones, or "
            "throw it away with --restart"
        )
    return journal


def _empty(path: Path) -> None:
    # The journal first: it must not speak of files that are gone.
    (path / JOURNAL).unlink(missing_ok=True)
    for inner in path.iterdir():
        if inner.name != _LOCK:
            _delete(inner)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync_names(folder: Path) -> None:
    """Bring the names of new files to the disk: syncing a file does not (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
