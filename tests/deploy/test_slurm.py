"""The script of Slurm: what it asks for, and a run of it on a Slurm of two machines that are both this one.

``srun`` and ``scontrol`` are stand-ins that do what the script needs of them; Ray, ``medformer`` and the signals are
real. No Slurm was at hand.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster import defaults
from pretrain.checkpoint import CheckpointStore
from tests.deploy.files import DEPLOY
from tests.documents import ROOT

SCRIPT = DEPLOY / "slurm.sh"
LIMIT_S, TRIES = 500, 3
TOO_SLOW = "The current node timed out during startup"

# As on a Slurm: options until the program. A second machine is this one, so its node of Ray takes other ports.
SRUN = r"""#!/bin/bash
node=one
while [[ $1 == -* ]]; do
  case $1 in -w) shift ;; --exclude=*) node=two ;; esac
  shift
done
echo "$node: $*" >> "$FAKE_SLURM/steps"
if [[ "$1 $2" == "ray start" ]]; then
  ports=(--object-store-memory=80000000)
  [[ $node == one ]] && ports+=(--min-worker-port=21000 --max-worker-port=21499 --dashboard-port="$FAKE_PAGE")
  [[ $node == two ]] && ports+=(--min-worker-port=21500 --max-worker-port=21999 --node-ip-address=127.0.0.1)
  exec "$@" "${ports[@]}" --dashboard-agent-listen-port="$([[ $node == one ]] && echo "$FAKE_ONE" || echo "$FAKE_TWO")"
fi
exec "$@"
"""
SCONTROL = r"""#!/bin/bash
case $1 in
  show) printf 'one\ntwo\n' ;;
  requeue) echo "$2" >> "$FAKE_SLURM/requeued" ;;
esac
"""


def directives() -> dict[str, str]:
    """The ``#SBATCH`` lines, which Slurm reads until the first command."""
    head = SCRIPT.read_text().partition("\nset -euo pipefail")[0]
    return {name: value for name, _, value in re.findall(r"^#SBATCH --([\w-]+)(=(\S+))?$", head, flags=re.MULTILINE)}


def test_bash_takes_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_it_is_signalled_alone_before_the_limit_and_may_be_queued_again() -> None:
    found = directives()
    assert found["signal"] == "B:USR1@120" and "requeue" in found and "exclusive" in found
    assert re.search(r"^trap '.*' USR1 TERM$", SCRIPT.read_text(), flags=re.MULTILINE)


def test_ray_is_started_with_options_that_it_has() -> None:
    start = pytest.importorskip("ray.scripts.scripts").start
    text = SCRIPT.read_text().replace("\\\n", " ")
    found = re.findall(r"\bray start (.*?) &", text)
    for words in found:
        values = [re.sub(r'"?\$\{?\w+\}?"?', "1", word) for word in words.split()]
        assert start.make_context("start", values).params["block"]
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_REPORT_URL", "RAY_worker_niceness"):
        assert f"{name}={defaults.RAY[name]}" in text
    assert len(found) == 2 and "--dashboard-host=127.0.0.1" in found[0]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on two machines with a CPU each."""
    from tests.cluster.conftest import free_port

    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    ray = tempfile.mkdtemp(prefix="mf", dir="/tmp")  # paths of sockets are short
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    yield {
        **environment,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1",
        "FAKE_SLURM": str(tmp_path), "FAKE_ONE": str(free_port()), "FAKE_TWO": str(free_port()),
        "FAKE_PAGE": str(free_port()),
        "MEDFORMER_HEAD_IP": "127.0.0.1", "MEDFORMER_RAY_PORT": str(free_port()), "RAY_TMPDIR": f"{ray}/job",
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "[one,two]", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    shutil.rmtree(ray, ignore_errors=True)


@contextlib.contextmanager
def submitted(environment: dict[str, str], log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as file:
        process = subprocess.Popen(
            ["bash", SCRIPT, *words], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def went_on(process: subprocess.Popen[bytes], store: CheckpointStore, last: int, log: Path) -> bool:
    """Wait for a checkpoint after step ``last``; false when Ray, which gives itself 30 s, was too slow to start."""
    deadline = time.monotonic() + LIMIT_S
    while (checkpoint := store.latest()) is None or checkpoint.step <= last:
        if process.poll() is not None and TOO_SLOW in log.read_text():
            return False
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)
    return True


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1500)
def test_a_run_on_two_machines_is_stopped_by_the_signal_queued_again_and_goes_on(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    from data_shards.sources.phantoms import Phantoms
    from data_shards.writing.writer import write_dataset
    from tests.pretrain.runs import document

    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), tmp_path / "knee")
    content = document(tmp_path / "knee", tmp_path / "run", schedule={"epochs": 40000, "max_steps": 100000})
    content["cluster"] = {"workers": 2, "threads_per_worker": 1, "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    store, last = CheckpointStore(tmp_path / "run" / "checkpoints"), -1
    for attempt in (1, 2):
        log = tmp_path / f"log-{attempt}"
        for _ in range(TRIES):
            with submitted(slurm, log, str(tmp_path / "run.yaml")) as process:
                if not went_on(process, store, last, log):
                    continue
                process.send_signal(signal.SIGUSR1)
                assert process.wait(LIMIT_S) == 3, log.read_text()
                break
        assert (tmp_path / "requeued").read_text().split() == ["4711"] * attempt
        assert not Path(slurm["RAY_TMPDIR"]).exists()
        assert (f"going on after step {last}" if attempt == 2 else "no checkpoint in") in log.read_text()
        newest = store.latest()
        assert newest is not None and newest.state()["world_size"] == 2
        last = newest.step
    assert "two: ray start --address=127.0.0.1" in (tmp_path / "steps").read_text()
