"""Training checkpoints: a folder that is complete, or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_shards.support.disk import FULL, is_full_disk
from data_shards.support.errors import CheckpointError, MedformerError
from data_shards.support.files import read_json, sha256_of, sync_tree, write_json

_NAME = re.compile(r"step-(\d{8})-attempt-(\d+)$")
ENGINE_TAG = "engine"
"""Name of the folder inside a checkpoint that DeepSpeed writes."""
STATE = "state.json"
"""Name of the file with what the engine notes beside the tensors."""
DIGESTS = "sha256.json"
"""Name of the file with the SHA-256 of all others."""


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
        return read_json(self.folder / STATE, CheckpointError)

    def verify(self) -> None:
        """Compare every file with the digest that was taken when it was written.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it.
        """
        path = self.folder / DIGESTS
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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int, attempt: int) -> Path:
        """Where the checkpoint that ``attempt`` wrote after ``step`` lies, or will lie."""
        return self.folder / f"step-{step:08d}-attempt-{attempt}"

    def partial(self, step: int, attempt: int) -> Path:
        """Where it is filled before."""
        final = self.path(step, attempt)
        return final.with_name(f".{final.name}.partial")

    def complete(self) -> list[Checkpoint]:
        """Every complete checkpoint, oldest first."""
        return sorted(
            (Checkpoint(path, *number) for path in self.folder.glob("step-*") if (number := numbers_of(path.name))),
            key=lambda checkpoint: (checkpoint.step, checkpoint.attempt),
        )

    def latest(self) -> Checkpoint | None:
        """The checkpoint to go on from, or None."""
        return max(self.complete(), key=lambda checkpoint: (checkpoint.step, checkpoint.attempt), default=None)

    def clean(self) -> None:
        """Remove what an interrupted run left half-written; call it on one rank before the others write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path)

    def begin(self, step: int, attempt: int) -> Path:
        """Make the hidden folder that is to be filled; one rank does.

        Raises:
            MedformerError: the disk refuses.
        """
        try:
            (partial := self.partial(step, attempt)).mkdir(parents=True)
        except OSError as error:
            raise self.refusal(step, attempt, error) from error
        return partial

    def commit(self, step: int, attempt: int, digests: Mapping[str, str]) -> Checkpoint:
        """Let a folder that was filled appear under its name, when the disk has all of it.

        Args:
            step: of the checkpoint.
            attempt: that has written it.
            digests: SHA-256 of each file in it, by its path.

        Raises:
            OSError: the disk refuses.
            MedformerError: so does this.
        """
        partial, final = self.partial(step, attempt), self.path(step, attempt)
        write_json(partial / DIGESTS, dict(digests))
        sync_tree(partial)
        os.replace(partial, final)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return Checkpoint(final, step, attempt)

    def refusal(self, step: int, attempt: int, error: Exception) -> MedformerError:
        """What to say when a checkpoint cannot be written, with what the run can go on from."""
        reason = FULL if is_full_disk(error) else getattr(error, "strerror", None) or str(error) or repr(error)
        last = self.latest()
        stays = "" if last is None else f"; {last.folder.name} stays, and --resume goes on from it"
        return MedformerError(f"cannot write checkpoint {self.path(step, attempt)}: {reason}{stays}")

    def remove(self, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint.

        Raises:
            MedformerError: the disk refuses.
        """
        folder = checkpoint.folder
        # Hidden first: what a kill leaves of it must not look complete.
        hidden = folder.with_name(f".{folder.name}.retired")
        try:
            os.replace(folder, hidden)
            shutil.rmtree(hidden)
        except OSError as error:
            raise MedformerError(f"cannot remove the old checkpoint {folder}: {error.strerror or error}") from error


def numbers_of(name: str) -> tuple[int, int] | None:
    """Step and attempt of the checkpoint that a folder's name says, or None when it says none."""
    match = _NAME.match(name)
    return None if match is None else (int(match[1]), int(match[2]))


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
