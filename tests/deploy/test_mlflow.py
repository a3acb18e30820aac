"""The tracking servers of ``deploy/``: options that MLflow has, loopback by default, foreign names refused."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster import defaults
from tests.deploy.files import DEPLOY, manifests
from tests.sockets import beyond_loopback, listening

defaults.apply()
pytest.importorskip("mlflow", reason="MLflow is not installed (extra: registry)")
SERVICES = manifests("mlflow-compose.yaml")[0]["services"]


def parsed(words: list[str]) -> dict[str, Any]:
    """The options of ``mlflow server``, by MLflow's own parser."""
    from mlflow.cli import server

    options: dict[str, Any] = server.make_context("server", words).params
    return options


def unit() -> dict[str, list[str]]:
    """The words of each key of the section ``Service``."""
    found: dict[str, list[str]] = {}
    section = (DEPLOY / "mlflow.service").read_text().partition("[Service]")[2].partition("\n[")[0]
    for line in section.strip().splitlines():
        key, _, value = line.partition("=")
        found.setdefault(key, []).extend(shlex.split(value))
    return found


def test_the_server_of_the_unit_keeps_to_this_machine() -> None:
    program, command, *words = unit()["ExecStart"]
    options = parsed(words)
    assert (Path(program).name, command) == ("mlflow", "server")
    assert options["host"] == "127.0.0.1" and options["serve_artifacts"]
    assert options["allowed_hosts"] == "localhost:*,127.0.0.1:*" and not options["disable_security_middleware"]
    assert options["artifacts_destination"].startswith(unit()["ReadWritePaths"][0])
    assert unit()["UMask"] == ["0077"]
    environment = dict(word.split("=", 1) for word in unit()["Environment"])
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == defaults.MLFLOW["MLFLOW_DISABLE_TELEMETRY"]


def test_the_containers_are_reached_from_this_machine_only_and_ask_for_a_password() -> None:
    program, command, *words = SERVICES["mlflow"]["command"]
    options = parsed(words)
    assert (program, command) == ("mlflow", "server")
    assert options["app_name"] == "basic-auth" and options["serve_artifacts"]
    listen, outside, inside = re.fullmatch(r"(\$\{[^}]*\}):(\d+):(\d+)", SERVICES["mlflow"]["ports"][0]).groups()
    assert listen == "${MLFLOW_LISTEN:-127.0.0.1}" and outside == inside == str(options["port"])
    assert "ports" not in SERVICES["database"]
    # No password is written down: where there is no default, the start fails and says what to set.
    environment = {**SERVICES["mlflow"]["environment"], **SERVICES["database"]["environment"]}
    for name, value in environment.items():
        assert ("PASSWORD" in name or "SECRET" in name) == (":?" in str(value)), name
    assert not any("PASSWORD" in word for word in words)


def test_mlflow_knows_the_names_in_the_environment_and_reads_the_users_of_the_containers() -> None:
    import mlflow

    folder = Path(mlflow.__file__).parent
    known = (folder / "environment_variables.py").read_text() + (folder / "utils/cli_args.py").read_text()
    known += (folder / "cli/__init__.py").read_text()
    names = {word.split("=")[0] for word in unit()["Environment"]} | set(SERVICES["mlflow"]["environment"])
    assert [name for name in names if f'"{name}"' not in known] == []
    written = configparser.ConfigParser()
    written.read_string(manifests("mlflow-compose.yaml")[0]["configs"]["basic-auth"]["content"])
    keys = set(written["mlflow"])
    assert "admin_password" not in keys
    assert all(f'"{key}"' in (folder / "server/auth/config.py").read_text() for key in keys)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    verifier = "/usr/bin/systemd-analyze"
    if not os.path.exists(verifier):
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / "mlflow.service").read_text().replace("/opt/medformer/bin/mlflow", sys.executable)
    (tmp_path / "mlflow.service").write_text(text)
    found = subprocess.run([verifier, "verify", tmp_path / "mlflow.service"], capture_output=True, text=True)
    assert "mlflow.service" not in found.stderr, found.stderr


@pytest.mark.slow
def test_a_server_started_as_the_unit_says_listens_on_loopback_and_refuses_foreign_names(tmp_path: Path) -> None:
    from tests.cluster.conftest import free_port

    port = free_port()
    moved = {"5000": str(port)}
    words = [moved.get(word, word.replace("/var/lib/medformer", str(tmp_path))) for word in unit()["ExecStart"][1:]]
    environment = dict(
        word.replace("/var/lib/medformer", str(tmp_path)).split("=", 1) for word in unit()["Environment"]
    )
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, cwd=tmp_path, umask=0o077,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, tmp_path / "log")
        assert f"127.0.0.1:{port}" in listening(process.pid) and beyond_loopback(process.pid) == {}
        assert status(port, "127.0.0.1") == 200
        assert status(port, "evil.example") == 403
        assert [path.name for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077] == ["log"]  # ours
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def status(port: int, host: str) -> int:
    """What the server answers to somebody who calls it ``host``."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 1}).encode(),
        headers={"Host": f"{host}:{port}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
