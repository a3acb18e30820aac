"""Where the faults happen: a Ray head with a dashboard, a second node, a tracking server, and who runs on them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from cluster.errors import ClusterError
from cluster.jobs.client import ENDED, Job, Jobs
from pretrain.config import PretrainConfig
from tests.cluster.conftest import TrackingServer
from tests.cluster.ray_head import RayHead


class Stage:
    """Real processes on 127.0.0.1: two nodes of one CPU, so that each holds a worker; started anew when asked.

    Args:
        folder: for logs and the database of the tracking server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = TrackingServer(folder / "server")
        self._generation = 0

    def start(self) -> None:
        """Start everything; the tracking server keeps its port and its database."""
        self.server.start()
        self.start_cluster()

    def start_cluster(self) -> None:
        """A head and a node, in place of none."""
        self._generation += 1
        self.ray = RayHead(self.folder / f"ray-{self._generation}").start()
        self.nodes = [self.ray.head, self.ray.add_node()]

    def add_node(self) -> None:
        """A node in place of a lost one."""
        self.nodes.append(self.ray.add_node())

    def lose_cluster(self) -> None:
        """The whole cluster at once, as when the machine of its head is gone."""
        drivers = self.drivers()
        for node in reversed(self.nodes):
            kill_session(node)
        for driver in drivers:  # each in a session of its own
            with contextlib.suppress(psutil.NoSuchProcess):
                driver.kill()
        self.ray.stop()
        self.nodes = []

    def mend(self) -> None:
        """What a trial left broken, or running, for the next one."""
        for driver in self.drivers():
            with contextlib.suppress(psutil.NoSuchProcess):
                driver.kill()
        _wait_until(lambda: not self.workers())
        if self.server.process is None:
            self.server.start()
        alive = [node for node in self.nodes if node.poll() is None]
        if self.nodes and len(alive) == 2 and alive[0] is self.ray.head:
            self.nodes = alive
            return
        self.lose_cluster()
        self.start_cluster()

    def stop(self) -> None:
        """End everything."""
        self.ray.stop()
        self.server.kill()

    def jobs(self) -> Jobs:
        """Of this head."""
        return Jobs(self.ray.dashboard)

    def submit(self, config: PretrainConfig, name: str, limit_s: float = 120) -> Job:
        """Send a run; an attempt whose end the head has not noticed yet is waited for."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                return self.jobs().submit(config, name=name)
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def wait_for_end(self, name: str, limit_s: float) -> Job:
        """The newest attempt, when it has ended.

        Raises:
            TimeoutError: it has not.
        """
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            job = self.jobs().job(name)
            if job.state in ENDED:
                return job
            time.sleep(1)
        raise TimeoutError(f"{name} has not ended after {limit_s:.0f} s")

    def workers(self, nodes: list[subprocess.Popen[bytes]] | None = None) -> list[psutil.Process]:
        """The training workers of these nodes, or of all, by pid."""
        return self._matching(lambda words: words[0].startswith("ray::RayTrainWorker"), nodes)

    def raylet(self, node: subprocess.Popen[bytes]) -> psutil.Process:
        """The raylet of a node."""
        (found,) = self._matching(lambda words: words[0].endswith("/raylet"), [node])
        return found

    def controllers(self) -> list[psutil.Process]:
        """The processes of Ray Train that lead the workers."""
        return self._matching(lambda words: words[0].startswith("ray::TrainController"), None)

    def drivers(self) -> list[psutil.Process]:
        """The commands that train, as the head runs them for jobs: each in a session of its own."""
        return _processes(
            lambda process, words: (
                words[1:4] == ["-m", "medformer", "pretrain"]
                and process.environ().get("RAY_ADDRESS", "").endswith(f":{self.ray.port}")
            )
        )

    def _matching(
        self, fits: Callable[[list[str]], bool], nodes: list[subprocess.Popen[bytes]] | None
    ) -> list[psutil.Process]:
        sessions = {node.pid for node in (self.nodes if nodes is None else nodes)}
        return _processes(lambda process, words: fits(words) and os.getsid(process.pid) in sessions)


def _processes(fits: Callable[[psutil.Process, list[str]], bool]) -> list[psutil.Process]:
    """The processes of this machine that fit, by pid; one that ends meanwhile does not."""
    found = []
    for process in psutil.process_iter():
        try:
            if (words := process.cmdline()) and fits(process, words):
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return sorted(found, key=lambda process: process.pid)


def _wait_until(happened: Callable[[], bool], limit_s: float = 120) -> None:
    """Raises TimeoutError when it does not happen."""
    deadline = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"workers are still there after {limit_s:.0f} s")
        time.sleep(0.2)


def kill_session(node: subprocess.Popen[bytes]) -> None:
    """SIGKILL to every process of a node, stopped ones too, as a power cut does."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == node.pid:
                process.send_signal(signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):
            continue
    node.wait()
