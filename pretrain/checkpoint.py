"""Training checkpoints: a folder that is complete, or not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data_shards.support.disk import FULL, is_filled, is_full_disk
from data_shards.support.errors import CheckpointError, MedformerError
from data_shards.support.files import read_json, sha256_of, sync_tree, write_json

_NAME = re.compile(r"step-(\d{8})-attempt-(\d+)$")
ENGINE_TAG = "engine"
"""Name of the folder inside a checkpoint that DeepSpeed writes."""
_DIGESTS = "sha256.json"
_DISK_ERRORS = ("inline_container", "iostream")
"""What tells the RuntimeErrors by which the writer of ``torch.save`` reports a full disk, of large and small files."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        folder: where it is.
        step: optimizer steps that were taken.
        attempt: of the run that wrote it; of two checkpoints of one step the later attempt counts.
    """

    folder: Path
    step: int
    attempt: int

    def state(self) -> dict[str, Any]:
        """What the engine noted beside the tensors.

        Raises:
            CheckpointError: the file is damaged.
        """
        return read_json(self.folder / "state.json", CheckpointError)

    def verify(self) -> None:
        """Compare every file with the digest that was taken when it was written.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        path = self.folder / _DIGESTS
        try:
            digests = json.loads(path.read_text())
            damaged = [name for name, digest in digests.items() if sha256_of(self.folder / name) != digest]
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged checkpoint: {error}; {self._way_out()}") from None
        if damaged:
            raise CheckpointError(f"{self.folder / damaged[0]}: damaged: its SHA-256 has changed; {self._way_out()}")

    def _way_out(self) -> str:
        return f"remove {self.folder} to go on from the checkpoint before it"

    def rng_file(self, rank: int) -> Path:
        """The random number generator states of a rank."""
        return self.folder / f"rng-rank-{rank}.pt"


class CheckpointStore:
    """The checkpoints of one run, in a folder that every worker sees.

    A checkpoint is filled under a hidden name and renamed when all ranks have written and the disk has it all. What
    a killed run left behind under a hidden name is removed by the next one; it is never loaded.

    Args:
        folder: where checkpoints lie; made when it is missing.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int, attempt: int) -> Path:
        """Where the checkpoint that ``attempt`` wrote after ``step`` lies, or will lie."""
        return self.folder / f"step-{step:08d}-attempt-{attempt}"

    def complete(self) -> list[Checkpoint]:
        """Every complete checkpoint, oldest first."""
        found = []
        for path in self.folder.glob("step-*"):
            if match := _NAME.match(path.name):
                found.append(Checkpoint(path, int(match[1]), int(match[2])))
        return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.attempt))

    def latest(self) -> Checkpoint | None:
        """The checkpoint to go on from, or None."""
        return max(self.complete(), key=lambda checkpoint: (checkpoint.step, checkpoint.attempt), default=None)

    def clean(self) -> None:
        """Remove what an interrupted run left half-written; call it on one rank before the others write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    @contextlib.contextmanager
    def write(self, step: int, attempt: int, state: dict[str, Any]) -> Iterator[Path]:
        """Write a checkpoint; every rank enters, and each fills its part of the folder that is yielded.

        Raises:
            MedformerError: the disk refuses; the half-written folder is removed.
        """
        final = self.path(step, attempt)
        partial = final.with_name(f".{final.name}.partial")
        leader = dist.get_rank() == 0
        try:
            if leader:
                partial.mkdir(parents=True)
                write_json(partial / "state.json", state)
            dist.barrier()
            yield partial
            dist.barrier()
            if leader:
                write_json(partial / _DIGESTS, _digests(partial))
                sync_tree(partial)
                os.replace(partial, final)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in _DISK_ERRORS):
                raise  # A worker was lost: that is for the surroundings to mend, by a restart.
            full = is_full_disk(error) or (isinstance(error, RuntimeError) and is_filled(partial))
            shutil.rmtree(partial, ignore_errors=True)
            reason = FULL if full else getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise MedformerError(f"cannot write checkpoint {final}: {reason}{self._what_stays()}") from error
        except MedformerError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise MedformerError(f"cannot write checkpoint {final}: {error}{self._what_stays()}") from error
        if leader:
            for old in self.complete()[: -self.keep]:
                self._remove(old.folder)
        dist.barrier()

    def _what_stays(self) -> str:
        last = self.latest()
        return "" if last is None else f"; {last.folder.name} stays, and --resume goes on from it"

    def _remove(self, folder: Path) -> None:
        # Hidden first: what a kill leaves of it must not look complete.
        hidden = folder.with_name(f".{folder.name}.retired")
        try:
            os.replace(folder, hidden)
            shutil.rmtree(hidden)
        except OSError as error:
            raise MedformerError(f"cannot remove the old checkpoint {folder}: {error.strerror or error}") from error


def _digests(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in paths}


def rng_state() -> dict[str, Any]:
    """State of the generators that the engine draws from on this worker."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(checkpoint: Checkpoint, rank: int, seed: int) -> None:
    """Put the generators back.

    A rank that did not exist when the checkpoint was written is seeded from run, step and rank.
    """
    path = checkpoint.rng_file(rank)
    if not path.exists():
        torch.manual_seed((seed * 1_000_003 + checkpoint.step) * 4099 + rank)
        return
    state = torch.load(path, weights_only=True)
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
