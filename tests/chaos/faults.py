"""The faults, by name: what is done to a run while it trains, and what a person would do after it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from cluster.jobs.client import ENDED, Job
from cluster.ray_runtime import read_attempt
from cluster.restarts import reasons
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.meter import read_metrics
from tests.chaos.stage import Stage, kill_session

LIMIT_S = 900
"""For a run to end after a fault, on a machine that does other things too."""


@dataclass
class Running:
    """A run under way.

    Attributes:
        stage: where.
        config: what was sent.
        name: of the run.
        draw: random numbers of this trial.
        told: what the person had to read or do, for the table.
        began_s: when, by the clock of the machine.
    """

    stage: Stage
    config: PretrainConfig
    name: str
    draw: random.Random
    told: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.time)

    @property
    def store(self) -> CheckpointStore:
        """The checkpoints of the run."""
        return CheckpointStore(self.config.out / "checkpoints")

    def ended(self) -> Job:
        """The newest attempt, when it has ended."""
        return self.stage.wait_for_end(self.name, LIMIT_S)

    def newest(self) -> Job:
        """The newest attempt as it is."""
        return self.stage.jobs().job(self.name)

    def again(self) -> Job:
        """Send the same run once more, as a person does whose job has died."""
        self.told.append("sent again")
        return self.stage.submit(self.config, self.name)

    def wait_for(self, happened: Callable[[], bool], what: str) -> None:
        """Until something has happened.

        Raises:
            TimeoutError: it has not.
        """
        deadline = time.monotonic() + LIMIT_S
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come about")
            time.sleep(0.005)


Fault = Callable[[Running], None]


def kill_worker(run: Running) -> None:
    """SIGKILL of one of the two workers."""
    run.draw.choice(run.stage.workers()).send_signal(signal.SIGKILL)


def stop_worker(run: Running) -> None:
    """SIGSTOP of a worker: it is there, and does nothing."""
    run.draw.choice(run.stage.workers()).send_signal(signal.SIGSTOP)


def kill_during_checkpoint(run: Running) -> None:
    """SIGKILL of a worker while a checkpoint is half-written."""
    folder, victim = run.config.out / "checkpoints", run.draw.choice(run.stage.workers())
    run.wait_for(lambda: any(folder.glob(".step-*.partial")), "a half-written checkpoint")
    victim.send_signal(signal.SIGKILL)


def kill_raylet(run: Running) -> None:
    """SIGKILL of the second node with all that runs on it; another one joins."""
    kill_session(run.stage.nodes[1])
    run.stage.nodes = run.stage.nodes[:1]
    run.told.append("a node added")
    run.stage.add_node()


def announce_raylet(run: Running) -> None:
    """SIGTERM of the second node, as Kubernetes sends it before it takes a machine away; another one joins.

    Ray announces it, and gives its workers 30 s: a checkpoint is written, and no step is done twice.
    """
    leaving = run.stage.nodes[1]
    run.stage.nodes = run.stage.nodes[:1]
    leaving.send_signal(signal.SIGTERM)
    run.wait_for(lambda: bool(reasons(run.config.out)), "the end of the first workers")
    newest, last = run.store.latest(), read_metrics(run.config.out / "metrics.jsonl")[-1]["step"]
    assert newest is not None and newest.step == last, f"step {last} was taken, and has no checkpoint"
    run.told.append("a node added")
    run.stage.add_node()
    run.ended()
    kill_session(leaving)
    (_, reason), *others = reasons(run.config.out)
    assert (reason, others) == ("a machine was announced to be taken away", []), f"{reason}; {others}"


def stop_raylet(run: Running) -> None:
    """SIGSTOP of the second node: its raylet and its workers do nothing; another one joins, later it is killed."""
    lost = run.stage.nodes[1]
    for process in [run.stage.raylet(lost), *run.stage.workers([lost])]:
        process.send_signal(signal.SIGSTOP)
    run.stage.nodes = run.stage.nodes[:1]
    run.told.append("a node added")
    run.stage.add_node()
    run.ended()
    kill_session(lost)


def kill_controller(run: Running) -> None:
    """SIGKILL of the process of Ray Train that leads the workers; they end with it."""
    (controller,) = run.stage.controllers()
    controller.send_signal(signal.SIGKILL)


def kill_driver(run: Running) -> None:
    """SIGKILL of the command that leads the run."""
    (driver,) = run.stage.drivers()
    driver.send_signal(signal.SIGKILL)
    run.ended()
    run.again()


def kill_head(run: Running) -> None:
    """SIGKILL of the head and its node; the cluster is started anew, and the run sent again."""
    run.stage.lose_cluster()
    run.told.append("cluster started")
    run.stage.start_cluster()
    run.again()


def kill_server(run: Running) -> None:
    """SIGKILL of the tracking server; it is back before the run ends, or after, and then the run is sent again."""
    run.stage.server.kill()
    if run.draw.random() < 0.5:
        time.sleep(2)
    else:
        run.ended()
    run.told.append("server started")
    run.stage.server.start()
    if run.newest().state in ENDED:
        run.again()


def stop_server(run: Running) -> None:
    """SIGSTOP of the tracking server for ten seconds: it takes connections and does not answer."""
    process = run.stage.server.process
    assert process is not None
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(10)
    os.killpg(process.pid, signal.SIGCONT)


def fill_disk(run: Running) -> None:
    """The disk of the run is full when a checkpoint is due; there is room again, and the run is sent again."""
    filler = run.config.out.parent / "filler"
    with open(filler, "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    job = run.ended()
    assert job.state == "FAILED", f"on a full disk the job is {job.state.lower()}"
    said = [line for line in run.stage.jobs().logs(run.name).splitlines() if "no space" in line.lower()]
    assert said, "the log does not say that the disk is full"
    filler.unlink()
    run.again()


def damage_checkpoint(run: Running) -> None:
    """The driver is killed, and of the newest checkpoint a file is cut off; it is refused, and removed by hand."""
    (driver,) = run.stage.drivers()
    driver.send_signal(signal.SIGKILL)
    run.ended()
    run.wait_for(lambda: not run.stage.workers(), "the end of the workers")
    newest = run.store.latest()
    assert newest is not None
    files = [path for path in newest.folder.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    run.again()
    assert run.ended().state == "FAILED", "a damaged checkpoint was taken"
    assert f"remove {newest.folder} to go on" in run.stage.jobs().logs(run.name)
    shutil.rmtree(newest.folder)
    run.told.append("checkpoint removed")
    run.again()


@contextlib.contextmanager
def held_up(workers: list[psutil.Process]) -> Iterator[None]:
    """Processes hardly get on, but answer in time: they are stopped every other moment."""
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            for number, pause_s in ((signal.SIGSTOP, 2.0), (signal.SIGCONT, 0.02)):
                for worker in workers:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        worker.send_signal(number)
                over.wait(pause_s)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGCONT)


def run_twice(run: Running) -> None:
    """A second attempt of the same run, sent under another name while the first trains: the older one must end."""
    first, run.name = run.name, f"{run.name}-twin"
    with held_up(run.stage.workers()):
        for _ in range(2):
            run.stage.add_node()
        run.stage.submit(run.config, run.name)
        run.wait_for(lambda: bool(read_attempt(run.config.out)), "the second attempt")
    run.stage.wait_for_end(first, LIMIT_S)
    run.ended()
    for node in run.stage.nodes[2:]:
        kill_session(node)
    del run.stage.nodes[2:]


KINDS: dict[str, tuple[Fault, int]] = {
    "SIGKILL a worker": (kill_worker, 4),
    "SIGSTOP a worker": (stop_worker, 3),
    "SIGKILL a worker during a checkpoint": (kill_during_checkpoint, 3),
    "SIGKILL a node": (kill_raylet, 2),
    "SIGTERM a node": (announce_raylet, 2),
    "SIGSTOP a node": (stop_raylet, 2),
    "SIGKILL the controller": (kill_controller, 2),
    "SIGKILL the driver": (kill_driver, 3),
    "SIGKILL the head": (kill_head, 2),
    "SIGKILL the tracking server": (kill_server, 2),
    "SIGSTOP the tracking server": (stop_server, 1),
    "disk full at a checkpoint": (fill_disk, 2),
    "a torn checkpoint": (damage_checkpoint, 1),
    "two attempts at once": (run_twice, 2),
}
"""What is done, and how often."""
