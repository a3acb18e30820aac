"""What a run asks of a cluster, and what Ray's process tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True)
class WorkerGroup:
    """How many workers, what each gets, and how many losses the run survives.

    Attributes:
        address: of a running Ray cluster; None for one on this machine.
        workers: processes that train together; at most so many, when ``min_workers`` is fewer.
        min_workers: so few train too when there is no room for more; None for always as many.
        threads_per_worker: CPU threads of each; None shares out those of the cluster.
        gpus_per_worker: GPUs of each; 0 trains on the CPU, None takes one when the cluster has one for every worker.
        max_failures: how often the group is started again after it lost a worker.
        wait_s: how long machines that have not joined the cluster yet are waited for.
        dashboard: whether a Ray of our own shows its dashboard.
        grow_every_s: how often room for more workers is looked for.
        hang_after_s: a worker whose process answers nothing for so long counts as lost.
        stuck_after_s: workers that answer, but whose training does not go on for so long, count as lost.
    """

    address: str | None = None
    workers: int = 1
    threads_per_worker: int | None = None
    gpus_per_worker: int | None = None
    max_failures: int = 3
    wait_s: float = 0.0
    dashboard: bool = False
    min_workers: int | None = None
    grow_every_s: float = 60.0
    hang_after_s: float = 60.0
    stuck_after_s: float = 1800.0

    @property
    def least(self) -> int:
        """The fewest workers that train."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def elastic(self) -> bool:
        """Whether their number may change during the run."""
        return self.least < self.workers


@runtime_checkable
class Driver(Protocol):
    """What is run once in the process of Ray, instead of a function on every worker, and places its own work."""

    def drive(self) -> object:
        """Run; Ray is there."""


@dataclass(frozen=True)
class Waiting:
    """Nothing is trained, because something has to come first.

    Attributes:
        on: whether Ray itself, or machines for the workers.
        reason: the same in words that follow "waiting for".
    """

    on: Literal["ray", "machines"]
    reason: str


@dataclass(frozen=True)
class Placed:
    """Every worker has its place."""


@dataclass(frozen=True)
class Ended:
    """The run is over.

    Attributes:
        value: what the function returned on rank 0.
        error: why there is no value.
    """

    value: object = None
    error: Exception | None = None


News = Waiting | Placed | Ended
