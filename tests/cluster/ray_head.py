"""A real Ray cluster for tests: ``ray start`` in processes of its own, a head with dashboard and further nodes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.cluster.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]
_START_S = 300
_STARTED = "Ray runtime started"


class RayHead:
    """A head and nodes on 127.0.0.1.

    Args:
        folder: for logs; Ray's own files lie in /tmp, where paths of sockets are short enough.
        cpus: of the head.
        token: that it asks for; None for a cluster that asks for none.
    """

    def __init__(self, folder: Path, cpus: int = 1, token: str | None = None) -> None:
        self.folder, self.cpus, self.token = folder, cpus, token
        self.port, dashboard = free_port(), free_port()
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self._ranges = 0
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._disks: list[str] = []
        # Heads side by side each need a port for clients too.
        ports = [f"--port={self.port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        self._head = ["--head", "--include-dashboard=true", *ports]

    def start(self) -> RayHead:
        """Start the head and wait until its dashboard takes jobs; again, for Ray gives itself no more than 30 s."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            self.head = self._run("head", [*self._head, f"--num-cpus={self.cpus}"])
            while self.head.poll() is None and time.monotonic() < deadline:
                if _STARTED in (self.folder / "head.log").read_text() and self._takes_jobs():
                    return self
                time.sleep(0.5)
            end(self.head)
        raise AssertionError((self.folder / "head.log").read_text())

    def _takes_jobs(self) -> bool:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            urllib.request.urlopen(
                urllib.request.Request(f"{self.dashboard}/api/jobs/", headers=headers), timeout=5
            ).close()
        except OSError:
            return False
        return True

    def add_node(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """A further raylet, when it has joined the head."""
        name = f"node-{len(self._nodes)}"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            # Machines have a disk each: in one folder a node would unpack a job anew under the feet of another one.
            self._disks.append(disk := tempfile.mkdtemp(prefix="ray-"))
            node = self._run(name, [f"--address=127.0.0.1:{self.port}", f"--num-cpus={cpus}", f"--temp-dir={disk}"])
            while node.poll() is None and time.monotonic() < deadline:
                if _STARTED in (self.folder / f"{name}.log").read_text():
                    self._nodes.append(node)
                    return node
                time.sleep(0.2)
            end(node)
        raise AssertionError((self.folder / f"{name}.log").read_text())

    def stop(self) -> None:
        """End everything."""
        for process in [*self._nodes, self.head]:
            end(process)
        for disk in self._disks:
            shutil.rmtree(disk, ignore_errors=True)  # what still writes there has been killed

    def _run(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Raylets of one machine must not take each other's ports.
        first = 20000 + 500 * self._ranges
        self._ranges += 1
        words += [f"--min-worker-port={first}", f"--max-worker-port={first + 499}"]
        words += [f"--dashboard-agent-listen-port={free_port()}"]
        environment = {
            **os.environ,
            # As where the environment is activated: jobs are started as `python`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **(
                {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
                if self.token
                else {"RAY_AUTH_MODE": "disabled"}
            ),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
        }
        with open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1",
                    "--object-store-memory=80000000", "--disable-usage-stats", *words,
                ],
                stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a node with all its processes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
