"""A whole pretraining on Ray: a killed worker, a stop and a mistake, and what is left of each."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from cluster.launch import beginning
from cluster.registry import Registry
from cluster.store import Store
from data_shards.format.manifest import read_manifest
from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import load, write_resolved
from data_shards.support.files import write_json
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.bundle import save_bundle
from pretrain.config import PretrainConfig, run_digest
from pretrain.module import create_backbone

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "planted-token-93e0"
DRIVER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from data_shards.support.documents import load
from data_shards.support.errors import MedformerError

def main():
    from cluster.launch import launch
    from pretrain.config import PretrainConfig
    overrides = [word for word in sys.argv[2:] if "=" in word]
    try:
        print(launch(load(PretrainConfig, Path(sys.argv[1]), overrides), resume="--resume" in sys.argv))
    except MedformerError as error:
        print(f"error: {{error}}")
        sys.exit(2)

if __name__ == "__main__":
    main()
"""
CONFIG = """
out: out
data:
  datasets: [{path: shards}]
  batch_size: 16
objectives:
  simclr: {}
schedule: {epochs: 100, max_steps: 40}
checkpoint: {every_steps: 5}
log_every_steps: 5
cluster: {workers: 2, threads_per_worker: 1}
"""


class Driver:
    """A process that runs ``launch`` in a folder that is not the source tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'store.db'}"
        self.mark = uuid.uuid4().hex
        (folder / "driver.py").write_text(DRIVER)
        (folder / "run.yaml").write_text(CONFIG)
        write_dataset(Phantoms("phantom-knee-mri-2d", subjects=40, images_per_subject=2), folder / "shards")

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.Popen(
            [sys.executable, "driver.py", "run.yaml", *words],
            cwd=self.folder,
            env={
                **environment,
                "MEDFORMER_TEST_MARK": self.mark,
                "MLFLOW_TRACKING_URI": self.uri,
                "MLFLOW_TRACKING_TOKEN": TOKEN,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], status: int = 0) -> str:
        stdout, stderr = process.communicate(timeout=280)
        assert process.returncode == status, stdout + stderr
        assert "Traceback" not in stdout + stderr
        assert self.workers() == []
        return stdout

    def workers(self) -> list[int]:
        """Process ids of the training workers, which carry the mark in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes()
                if ours and b"RayTrainWorker" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def wait_for_step(self, process: subprocess.Popen[str], step: int, out: str) -> None:
        path = self.folder / out / "metrics.jsonl"
        deadline = time.monotonic() + 240
        while not path.exists() or f'"step": {step},' not in path.read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.datasets.0.path=nowhere"], "nowhere"),
        (["data.batch_size=2"], "each needs two images of every batch"),
        (["model.kwargs={depth: -1}"], "medformer_nano cannot be made"),
        (["model.kwargs={dept: 1}"], "medformer_nano cannot be made"),
        (["optimizer.kwargs={epsilon: 1}"], "adamw refuses its arguments"),
        (["objectives.simclr.hidden=0"], "objectives"),
        (["deepspeed={zero_optimization: {stage: 4}}"], "4 is not supported"),
        (["cluster.tracking_uri=http://127.0.0.1:9"], "does not answer"),
        (["out=/proc/out"], "/proc/out"),
    ],
)
def test_a_mistake_is_told_before_ray_starts_and_leaves_no_folder(
    prepared: Path, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.launch.run_on_workers", lambda *_, **__: pytest.fail("the workers were started"))
    assert main(["pretrain", "run.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1
    assert not (prepared / "out").exists()


def test_a_changed_key_is_named_with_both_values_before_ray_starts(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.launch.run_on_workers", lambda *_, **__: pytest.fail("the workers were started"))
    stopped_run(prepared, bundle=False)
    changes = ["optimizer.lr=0.5", "objectives.byol={tau: 0.9}", "seed=4", "log_every_steps=1"]
    assert main(["pretrain", "run.yaml", "--resume", *changes]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(r" configuration \(objectives\.byol: nothing then, \{[^}]*'tau': 0\.9[^}]*\} now; ", error), error
    assert "optimizer.lr: 0.001 then, 0.5 now; seed: 0 then, 4 now); a resumed run may only change out" in error


def test_more_workers_than_cpus_are_refused_here_and_leave_no_folder(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.launch.run_on_workers", lambda *_, **__: pytest.fail("the workers were started"))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert main(["pretrain", "run.yaml"]) == 2
    assert "error: 2 workers need as many CPUs, this machine has 1; lower cluster.workers" in capsys.readouterr().err
    assert not (prepared / "out").exists()


def test_a_number_of_workers_that_zero_cannot_change_is_refused_before_ray_starts(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.launch.run_on_workers", lambda *_, **__: pytest.fail("the workers were started"))
    stage = "deepspeed={zero_optimization: {stage: 1, round_robin_gradients: true}}"
    stopped_run(prepared, stage, bundle=False, zero_stage=1)
    for workers in ("3", "1:2"):
        assert main(["pretrain", "run.yaml", "--resume", stage, f"cluster.workers={workers}"]) == 2
        assert "round_robin_gradients" in capsys.readouterr().err


def test_a_finished_run_is_neither_trained_nor_registered_again(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.launch.run_on_workers", lambda *_, **__: pytest.fail("the workers were started"))
    bundle = stopped_run(prepared, bundle=True)
    before = {path: path.read_bytes() for path in bundle.iterdir()}
    words = ["pretrain", "run.yaml", "--resume", "cluster.model_name=nano", "log_every_steps=1"]
    assert main([*words, f"cluster.tracking_uri=sqlite:///{prepared / 'store.db'}"]) == 0
    assert f"finished already, nothing is trained or registered; the model is in {bundle}" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before
    assert not (prepared / "store.db").exists()
    assert main([*words, "schedule.max_steps=80"]) == 2
    assert "schedule.max_steps: 40 then, 80 now" in capsys.readouterr().err


def test_what_the_tracking_server_missed_of_a_finished_run_is_sent_by_resume(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.launch.run_on_workers", lambda *_, **__: pytest.fail("the workers were started"))
    bundle = stopped_run(prepared, bundle=True)
    uri = f"sqlite:///{prepared / 'store.db'}"
    client = Store(uri).client
    run = client.create_run(client.create_experiment("training", (prepared / "artifacts").as_uri()))
    client.log_metric(run.info.run_id, "loss", 5.0, step=1)
    (bundle.parent / "mlflow_run_id").write_text(run.info.run_id + "\n")
    lines = [json.dumps({"step": step, "loss": 6.0 - step}) + "\n" for step in range(1, 5)]
    (bundle.parent / "metrics.jsonl").write_text("".join(lines))
    for _ in range(2):
        assert main(["pretrain", "run.yaml", "--resume", f"cluster.tracking_uri={uri}"]) == 0
        told = client.get_metric_history(run.info.run_id, "loss")
        assert sorted((point.step, point.value) for point in told) == [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0)]
        assert client.get_run(run.info.run_id).info.status == "FINISHED"
        assert "finished already" in capsys.readouterr().out


def test_a_resumed_run_says_from_where_it_goes_on(prepared: Path) -> None:
    config = load(PretrainConfig, prepared / "run.yaml", [])
    assert beginning(config) == f"no checkpoint in {config.out}: the run begins at its first step"
    stopped_run(prepared, bundle=False)
    assert beginning(config) == "going on after step 5"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch") / "shards"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=40, images_per_subject=2), folder)
    return folder


@pytest.fixture
def prepared(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a document and its shards, as current folder."""
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "shards").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stopped_run(folder: Path, *words: str, bundle: bool, zero_stage: int = 0) -> Path:
    """What a run leaves that a resumption looks at before it starts; returns where its bundle is."""
    out = folder / "out"
    config = load(PretrainConfig, folder / "run.yaml", words)
    checkpoint = out / "checkpoints" / "step-00000005-attempt-0"
    checkpoint.mkdir(parents=True)
    write_resolved(config, out)
    state = {"step": 5, "world_size": 2, "zero_stage": zero_stage, "config_sha256": run_digest(config)}
    write_json(checkpoint / "state.json", state)
    if bundle:
        save_bundle(out / "bundle", create_backbone(config.model), config.model.name, {}, {}, {})
    return out / "bundle"


@pytest.mark.slow
def test_ctrl_c_while_ray_starts_and_the_next_try_is_not_refused(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    process = driver.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "out").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(2)
    asked_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert time.monotonic() - asked_s < 10  # 5 s of ours, and the end of an interpreter with torch on a busy machine
    assert not (tmp_path / "out").exists()
    again = driver.start("schedule.max_steps=5")
    driver.finish(again)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_changes_neither_the_weights_nor_the_curves(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    driver.finish(driver.start("out=unbroken"))

    process = driver.start("out=broken", "cluster.model_name=nano")
    driver.wait_for_step(process, 15, "broken")
    os.kill(driver.workers()[0], signal.SIGKILL)
    stdout = driver.finish(process)

    assert (tmp_path / "broken" / "attempt").read_text() == "1\n"
    weights = [tmp_path / out / "bundle" / "model.safetensors" for out in ("unbroken", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert steps_in(tmp_path / "broken" / "metrics.jsonl") == list(range(5, 41, 5))
    run_id = (tmp_path / "broken" / "mlflow_run_id").read_text().strip()
    client = Store(driver.uri).client
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run_id, "loss")] == list(range(5, 41, 5))
    (published,) = Registry(driver.uri).show("nano").versions
    assert published.run_id == run_id
    assert f"registered nano:{published.version}" in stdout
    check_page(driver, run_id, stdout)


def check_page(driver: Driver, run_id: str, stdout: str) -> None:
    """What MLflow's pages show of a run is there, and no token is."""
    client = Store(driver.uri).client
    run = client.get_run(run_id)
    assert {each.path for each in client.list_artifacts(run_id)} == {"config.yaml", "datasets.json", "figures"}
    assert [each.path for each in client.list_artifacts(run_id, "figures/views")] == ["figures/views/step-00000001.png"]
    assert run.data.tags["mlflow.source.name"].startswith("driver.py run.yaml out=broken")
    assert run.data.tags["mlflow.user"] and "objectives: simclr" in run.data.tags["mlflow.note.content"]
    (data,) = run.inputs.dataset_inputs
    manifest = read_manifest(driver.folder / "shards").digest
    assert data.dataset.digest == manifest[:36] and json.loads(data.dataset.profile)["manifest_sha256"] == manifest
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert f"/runs/{run_id}?workflowType=machine_learning" in stdout
    written = [path.read_bytes() for path in driver.folder.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in [*written, stdout.encode()])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_writes_a_checkpoint_and_a_resumed_run_goes_on_from_it(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    process = driver.start("schedule.max_steps=400", "checkpoint.every_steps=1000")
    driver.wait_for_step(process, 10, "out")
    process.terminate()
    page, returned = driver.finish(process).splitlines()
    assert page.startswith("the run in MLflow: ") and returned == "None"
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("step-*")
    stopped_at = int(checkpoint.name[5:13])
    assert 10 <= stopped_at < 400
    run_id = (tmp_path / "out" / "mlflow_run_id").read_text().strip()
    assert Store(driver.uri).client.get_run(run_id).info.status == "KILLED"

    refused = driver.start("schedule.max_steps=400", "checkpoint.every_steps=1000")
    assert "exists already" in driver.finish(refused, status=2)

    process = driver.start("schedule.max_steps=400", "checkpoint.every_steps=1000", "--resume")
    driver.wait_for_step(process, stopped_at + 5, "out")
    process.terminate()
    driver.finish(process)
    steps = steps_in(tmp_path / "out" / "metrics.jsonl")
    ended_at = max(int(each.name[5:13]) for each in (tmp_path / "out" / "checkpoints").glob("step-*"))
    # Every fifth step, and those at which it was stopped, which are observed whatever their number.
    assert steps == sorted({*range(5, ended_at + 1, 5), stopped_at, ended_at})
    assert (tmp_path / "out" / "mlflow_run_id").read_text().strip() == run_id
