"""Real stores for the tests of the cluster layer: SQLite files, and a tracking server in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster import defaults

# Before the first import of MLflow, as the system itself does.
defaults.apply()
pytest.importorskip("mlflow", reason="MLflow is not installed (extra: registry)")


class TrackingServer:
    """``mlflow server`` on 127.0.0.1 with proxied artifacts."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> TrackingServer:
        """Start the process and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
        with open(self.folder / "server.log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return self
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """End the server and its workers as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server_of_the_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("tracking-server") / "server")
    yield server
    server.kill()


@pytest.fixture
def new_tracking_server(server_of_the_file: TrackingServer) -> TrackingServer:
    """A tracking server for this file alone, running, which a test may kill and start again."""
    return server_of_the_file if server_of_the_file.process else server_of_the_file.start()


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """A tracking server shared by the tests of a session; each test uses names of its own."""
    server = TrackingServer(tmp_path_factory.mktemp("tracking-server")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An embedded store shared by the tests of a session: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'medformer.db'}"


@pytest.fixture(params=["sqlite", "http"])
def tracking_uri(request: pytest.FixtureRequest) -> str:
    """The same test on the embedded store and over HTTP."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_uri"))
    return str(request.getfixturevalue("tracking_server").uri)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a model bundle whose weights are drawn from ``seed``."""

    def make(
        seed: int = 0, size: int = 1000, folder: str = "bundle", metrics: str = "{}", provenance: str | None = None
    ) -> Path:
        path = tmp_path / f"{folder}-{seed}"
        path.mkdir()
        save_file({"weight": np.random.default_rng(seed).random(size, dtype=np.float32)}, path / "model.safetensors")
        (path / "config.json").write_text('{"architecture": "medformer_nano"}')
        (path / "provenance.json").write_text(provenance or f'{{"seed": {seed}}}')
        (path / "metrics.json").write_text(metrics)
        (path / "README.md").write_text("# A model\n")
        return path

    return make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
