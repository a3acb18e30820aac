"""Writing checkpoints while training goes on.

Every rank copies its part into memory and goes on; a thread of each rank writes, hashes and flushes it, and leaves a
note of its digests in the hidden folder when all of it is on the disk. The thread of rank 0 waits for the notes of all
ranks and renames the folder. So no collective is used by two threads, a rank that dies leaves nothing that looks
complete, and how long the disk takes is no matter of the training.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json, sha256_of, write_json
from pretrain.checkpoint import STATE, Checkpoint, CheckpointStore
from pretrain.runtime import Runtime, on_rank_zero
from pretrain.saving.hashed import Abandoned, save_hashed
from pretrain.stopping import Votes

_LOOK_S = 0.02
_TOLD_S = 1.0
_PATIENCE_S = 600.0


class _Writing:
    """A checkpoint under way.

    Attributes:
        contents: what this rank writes, by file name; given up when it is written.
        own_part: set when this rank has written its part, or failed.
        over: set when this rank has nothing more to do for it.
        problem: why it could not.
        complete: the checkpoint, on rank 0, once it is there.
    """

    def __init__(self, step: int, contents: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.step = step
        self.contents = contents
        self.state = state
        self.own_part, self.over = threading.Event(), threading.Event()
        self.problem: MedformerError | None = None
        self.complete: Checkpoint | None = None


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time; all methods but :meth:`votes` are called by every rank alike.

    A context manager. When its block ends with an error of ours, what is under way is completed, as it is of a good
    step; another error, such as a worker that is lost, leaves it to the hidden folder.

    Args:
        store: where they lie.
        runtime: the surroundings; told of every complete checkpoint.
        completed: called on rank 0, in the thread that writes, when a checkpoint has become complete.
    """

    def __init__(self, store: CheckpointStore, runtime: Runtime, completed: Callable[[Checkpoint], None]) -> None:
        self._store = store
        self._runtime = runtime
        self._completed = completed
        self._writing: _Writing | None = None
        self._abandoned = threading.Event()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writing = self._writing
        if writing is None:
            return
        if not isinstance(error, MedformerError) or writing.problem is not None:
            self._abandoned.set()
        # No collective here: the error may be of this rank alone.
        writing.over.wait(_PATIENCE_S)

    def save(self, step: int, state: Mapping[str, Any], take: Callable[[Path], dict[str, Any]]) -> None:
        """Begin a checkpoint; returns when it is copied. The one before is waited for, and a long wait is told.

        Args:
            step: optimizer steps that were taken.
            state: what is noted beside the tensors, the same on every rank.
            take: gives copies of what this rank writes, by file name, for the hidden folder of the checkpoint.

        Raises:
            MedformerError: it cannot be begun, or the one before could not be written.
        """
        before, began_s = self._writing, time.monotonic()
        self.finish()
        waited_s = time.monotonic() - began_s
        if before is not None and waited_s > _TOLD_S and self._runtime.rank == 0:
            print(
                f"medformer: the checkpoint of step {step} had to wait {waited_s:.1f} s for that of step "
                f"{before.step} to be written; checkpoint.every_steps is small for this disk",
                file=sys.stderr,
                flush=True,
            )
        folder = on_rank_zero(self._runtime, lambda: self._store.begin(step, self._runtime.attempt))
        writing = _Writing(step, take(folder), state)
        self._writing = writing
        # A daemon: nothing waits for it when the process has to end.
        threading.Thread(target=self._work, args=(writing,), name=f"checkpoint-{step}", daemon=True).start()

    def votes(self, stop: bool) -> Votes:
        """What this rank has to say of the checkpoint under way, and of whether to ``stop``."""
        writing = self._writing
        if writing is None:
            return Votes(stop)
        return Votes(stop, failed=writing.problem is not None, complete=writing.complete is not None)

    def note(self, votes: Votes) -> None:
        """Take note of what :meth:`votes` has come to among the ranks.

        Raises:
            MedformerError: a rank has failed; on every rank, with the reason.
        """
        if votes.failed:
            self.finish()
        elif votes.complete:
            self._announce()

    def finish(self) -> None:
        """Wait until the checkpoint under way, if there is one, is complete.

        Raises:
            MedformerError: a rank could not write it; on every rank, with the reason. Nothing of it is left.
        """
        writing = self._writing
        if writing is None:
            return
        writing.own_part.wait()
        problems: list[MedformerError | None] = [None] * self._runtime.world_size
        dist.all_gather_object(problems, writing.problem)
        if any(problems):
            self._abandoned.set()  # Rank 0 waits for notes that will not come.
        try:
            on_rank_zero(self._runtime, lambda: self._settle(writing, problems))
        except MedformerError:
            self._writing = None
            raise
        self._announce()

    def _settle(self, writing: _Writing, problems: list[MedformerError | None]) -> None:
        writing.over.wait()
        for problem in (*problems, writing.problem):
            if problem is not None:
                shutil.rmtree(self._store.partial(writing.step, self._runtime.attempt), ignore_errors=True)
                raise problem

    def _announce(self) -> None:
        writing, self._writing = self._writing, None
        assert writing is not None
        self._runtime.checkpoint_saved(self._store.path(writing.step, self._runtime.attempt), writing.step)

    def _work(self, writing: _Writing) -> None:
        try:
            checkpoint = self._write(writing)
            if checkpoint is not None:
                self._completed(checkpoint)
                writing.complete = checkpoint
        except Abandoned:
            """The run has ended."""
        except MedformerError as error:
            writing.problem = error
        except Exception as error:  # whatever it is, it must not be lost with the thread
            writing.problem = self._store.refusal(writing.step, self._runtime.attempt, error)
        finally:
            writing.contents = {}
            writing.own_part.set()
            writing.over.set()

    def _write(self, writing: _Writing) -> Checkpoint | None:
        """Write the part of this rank; on rank 0 wait for the others, and give the checkpoint unless it is given up."""
        attempt, rank = self._runtime.attempt, self._runtime.rank
        folder = self._store.partial(writing.step, attempt)
        try:
            digests = {}
            if rank == 0:
                write_json(folder / STATE, dict(writing.state))
                digests[STATE] = sha256_of(folder / STATE)
            for name, content in writing.contents.items():
                (folder / name).parent.mkdir(exist_ok=True)
                digests[name] = save_hashed(content, folder / name, self._abandoned.is_set)
            writing.contents = {}
            write_json(_note(folder, rank), digests)
            writing.own_part.set()
            if rank != 0 or (noted := self._notes(folder)) is None:
                return None
            return self._store.commit(writing.step, attempt, noted)
        except (OSError, MedformerError) as error:
            raise self._store.refusal(writing.step, attempt, error) from error

    def _notes(self, folder: Path) -> dict[str, str] | None:
        """The digests of all files by all ranks, once all have written; None when that is not waited for any more."""
        found: dict[str, str] = {}
        for rank in range(self._runtime.world_size):
            while not _note(folder, rank).exists():
                if self._abandoned.wait(_LOOK_S):
                    return None
            found |= read_json(_note(folder, rank), MedformerError)
            _note(folder, rank).unlink()
        return found


def _note(folder: Path, rank: int) -> Path:
    return folder / f".written-by-rank-{rank}.json"
