"""What the machines of a cluster have, what a run asks for, and whether the one fits into the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Machine:
    """CPUs and GPUs of a machine, or what of them is free."""

    cpus: float
    gpus: float = 0.0

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Machine:
        """From a mapping of Ray's resources."""
        return cls(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))

    def holds(self, share: Share) -> int:
        """How many workers with this share run here side by side."""
        by_cpu = int(self.cpus // share.threads)
        return by_cpu if share.gpus == 0 else min(by_cpu, int(self.gpus // share.gpus))


@dataclass(frozen=True)
class Share:
    """What one worker gets: CPU threads, at least one, and GPUs."""

    threads: int
    gpus: int = 0

    def __str__(self) -> str:
        return _holdings(self.threads, self.gpus)

    def as_resources(self) -> dict[str, float]:
        """The share as Ray's resources."""
        return {"CPU": self.threads, **({"GPU": self.gpus} if self.gpus else {})}


def room(machines: Iterable[Machine], share: Share) -> int:
    """How many workers with this share the machines hold together."""
    return sum(machine.holds(share) for machine in machines)


def shared_out(
    machines: Sequence[Machine], workers: int, *, threads: int | None, gpus: int | None, least: int | None = None
) -> Share:
    """The share of each worker, with what is left open decided by what the cluster has.

    Args:
        machines: of the cluster.
        workers: how many there are to be, at most.
        threads: CPU threads of each; None takes as many as all workers can have, at least one.
        gpus: GPUs of each; None takes one when every worker can have one, else none.
        least: with so few the run does too: when the machines do not hold more, they share out all there is.

    Returns:
        The share; whether the machines hold it is not said by that.
    """
    least = workers if least is None else least
    if gpus is None:
        gpus = int(room(machines, Share(threads or 1, 1)) >= least)
    workers = max(least, min(workers, room(machines, Share(threads or 1, gpus))))
    if threads is None:
        most = max((int(machine.cpus) for machine in machines), default=1)
        threads = next((count for count in range(most, 1, -1) if room(machines, Share(count, gpus)) >= workers), 1)
    return Share(threads, gpus)


def shortage(machines: Sequence[Machine], workers: int, share: Share) -> str | None:
    """What keeps the workers from running, with the numbers asked for and those there; None when they fit.

    Machines that are busy now count in full.
    """
    if (held := room(machines, share)) >= workers:
        return None
    asked = wanted(workers, share)
    for unit, per_worker, there in (
        ("CPU", share.threads, [machine.cpus for machine in machines]),
        ("GPU", share.gpus, [machine.gpus for machine in machines]),
    ):
        if workers * per_worker > sum(there):
            total = _counted(workers * per_worker, unit)
            return f"asked for {asked}, {total} in all; there are {sum(there):g}: {described(machines)}"
        if per_worker > max(there):
            most = f"the most on one is {max(there):g}"
            return f"asked for {asked}; no machine has {_counted(per_worker, unit)}, {most}: {described(machines)}"
    return f"asked for {asked}; there is room for {held} of the workers: {described(machines)}"


def wanted(workers: int, share: Share) -> str:
    """What is asked for, in words."""
    return f"{_counted(workers, 'worker')} with {share}{' each' if workers > 1 else ''}"


def described(machines: Iterable[Machine]) -> str:
    """The machines in words, equal ones together, the largest first."""
    counts = sorted(Counter(machines).items(), reverse=True)
    words = [f"{_counted(count, 'machine')} with {_holdings(machine.cpus, machine.gpus)}" for machine, count in counts]
    return ", ".join(words) or "no machine"


def machines() -> list[Machine]:
    """The machines of the cluster that this process is connected to."""
    import ray

    return [Machine.of(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def free_machines() -> list[Machine]:
    """The same machines, with what is free of each now."""
    from ray._private.state import available_resources_per_node

    free: Mapping[str, Any] = available_resources_per_node()
    return [Machine.of(resources) for resources in free.values()]


def _holdings(cpus: float, gpus: float) -> str:
    return f"{_counted(cpus, 'CPU')} and {_counted(gpus, 'GPU')}"


def _counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}" + ("" if number == 1 else "s")
