"""What all ranks have to agree on in every step: whether to stop, and how far the checkpoint under way is."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

import torch
import torch.distributed as dist


class Votes(NamedTuple):
    """What the ranks say.

    Attributes:
        stop: to be asked to write a checkpoint and end; one rank that is takes the others with it.
        failed: that its part of the checkpoint under way could not be written.
        complete: that the checkpoint under way is complete; rank 0 knows.
    """

    stop: bool = False
    failed: bool = False
    complete: bool = False


class StepVote:
    """One vote of all ranks per step, counted behind the backward pass.

    A rank casts its vote before the backward pass and asks for the outcome after it: by then every rank has taken part
    in the reduction of the gradients, so the votes are there and nobody waits. They go by gloo through the memory of
    the host, in a group of their own, so that no GPU is asked and no other collective is disturbed. So a request is
    obeyed after the step in which it comes, or after the next one if it comes during the backward pass.

    A context manager, entered by every rank.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        self._work: dist.Work | None = None
        self._votes = torch.zeros(len(Votes._fields), dtype=torch.int32)

    def __enter__(self) -> StepVote:
        if dist.get_world_size() > 1:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup)  # every rank is a member
            self._group = group
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error a vote may still be under way, for which the end of the group would wait.
        if kind is None and self._group is not None:
            dist.destroy_process_group(self._group)

    def cast(self, votes: Votes) -> None:
        """Say what this rank has to say."""
        self._votes.copy_(torch.tensor(votes, dtype=torch.int32))
        if self._group is not None:
            self._work = dist.all_reduce(self._votes, group=self._group, async_op=True)

    def outcome(self) -> Votes:
        """What any rank says; the same on every rank."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return Votes(*(count > 0 for count in self._votes.tolist()))
