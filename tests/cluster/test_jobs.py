"""Jobs over HTTP on a real Ray head with a dashboard: sent, followed, stopped, sent again, refused."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.jobs.client import ENDED, Job, Jobs
from cluster.jobs.package import DOCUMENT, MOST_BYTES, pack
from cluster.status_lines import Status, parsed
from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import parse
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from tests.cluster.ray_head import RayHead
from tests.pretrain.runs import document

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
LIMIT_S = 400


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "knee"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), folder)
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """One node with a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = RayHead(tmp_path_factory.mktemp("ray")).start()
        yield cluster
        cluster.stop()


def config(shards: Path, out: Path, workers: int = 1, **changes) -> PretrainConfig:
    content = document(shards, out, **{"schedule": {"epochs": 10, "max_steps": 4}, **changes})
    content["cluster"] = {
        "threads_per_worker": 1,
        "workers": workers,
        "tracking_uri": f"sqlite:///{out.parent}/mlflow.db",
    }
    return parse(PretrainConfig, content, "test")


def ended(jobs: Jobs, name: str) -> Job:
    deadline = time.monotonic() + LIMIT_S
    while (job := jobs.job(name)).state not in ENDED:
        assert time.monotonic() < deadline, jobs.logs(name)
        time.sleep(0.5)
    return job


@pytest.mark.slow
def test_a_job_runs_on_two_nodes_is_stopped_and_goes_on_when_it_is_sent_again(
    head: RayHead, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head.add_node()
    jobs, out = Jobs(head.dashboard), tmp_path / "chest-run"
    long = config(shards, out, workers=2, schedule={"epochs": 4000, "max_steps": 20000})
    job = jobs.submit(long)
    assert (job.name, job.attempt, job.out) == ("chest-run", 1, str(out))
    with pytest.raises(ClusterError, match="medformer jobs stop chest-run"):
        jobs.submit(long)
    deadline = time.monotonic() + LIMIT_S
    store = CheckpointStore(out / "checkpoints")
    while store.latest() is None:
        assert time.monotonic() < deadline and jobs.job("chest-run").state not in ENDED, jobs.logs("chest-run")
        time.sleep(0.5)
    assert main(["jobs", "stop", "chest-run", "--address", head.dashboard]) == 0
    assert ended(jobs, "chest-run").state in ("STOPPED", "FAILED")
    stopped_at = store.latest().step
    assert store.latest().state()["world_size"] == 2
    points = [point for line in jobs.logs("chest-run", statuses=True).splitlines() if (point := parsed(line))]
    assert points and points[-1].total == 20000 and points[-1].images_per_s > 0
    assert not any(map(parsed, jobs.logs("chest-run").splitlines()))
    with pytest.raises(ClusterError, match="has ended"):
        jobs.stop("chest-run")
    again = jobs.submit(long.model_copy(update={"schedule": long.schedule.model_copy(update={"max_steps": 20000})}))
    assert again.id == "chest-run.2"
    while store.latest().step <= stopped_at:
        assert time.monotonic() < deadline + LIMIT_S and jobs.job("chest-run").state not in ENDED
        time.sleep(0.5)
    assert f"going on after step {stopped_at}" in jobs.logs("chest-run")
    jobs.stop("chest-run")
    ended(jobs, "chest-run")
    capsys.readouterr()
    assert main(["jobs", "list", "--address", head.dashboard]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["chest-run", "1"], ["chest-run", "2"]]


def test_a_job_is_watched_to_its_end_and_leaves_a_bundle(
    head: RayHead, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "short"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(shards, out).model_dump(mode="json")))
    assert main(["jobs", "submit", str(path), "--address", head.dashboard, "--workers", "1:1", "--watch"]) == 0
    said = capsys.readouterr().out
    assert "submitted short;" in said and "step 4 of 4" in said and said.endswith("short.1: succeeded\n")
    assert (out / "bundle" / "model.safetensors").is_file()
    assert main(["jobs", "status", "short", "--address", head.dashboard]) == 0
    assert "short.1: succeeded" in capsys.readouterr().out
    assert main(["jobs", "logs", "short", "--address", head.dashboard]) == 0
    assert "model bundle:" in capsys.readouterr().out


def test_a_run_that_fails_on_the_cluster_says_why(head: RayHead, shards: Path, tmp_path: Path, capsys) -> None:
    jobs = Jobs(head.dashboard)
    jobs.submit(config(tmp_path / "nowhere", tmp_path / "lost"))
    assert main(["jobs", "watch", "lost", "--address", head.dashboard]) == 1
    said = capsys.readouterr().out
    assert "nowhere" in said and said.endswith("lost.1: failed\n")
    with pytest.raises(ClusterError, match="the name lost is that of the run in"):
        jobs.submit(config(shards, tmp_path / "elsewhere"), name="lost")
    with pytest.raises(ClusterError, match=r"no job 'lots'.*did you mean 'lost'"):
        jobs.job("lots")


def test_what_cannot_be_sent_is_refused_in_one_line(head: RayHead, shards: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(shards, tmp_path / "out").model_dump(mode="json")))
    there = ["--address", head.dashboard]
    big = tmp_path / "weights.bin"
    with open(big, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    for words, message in (
        ([*there, "out=runs/x"], "out: runs/x: a job runs on other machines; give an absolute path"),
        ([*there, "model.init_from=runs/b"], "model.init_from: runs/b: a job runs on other machines"),
        ([*there, "probes.datasets=[{path: runs/p}]"], "probes.datasets.0.path: runs/p: a job runs on other machines"),
        ([*there, "--name", "a b"], "name 'a b': expected letters"),
        ([*there, "--include", str(tmp_path / "none")], "no such file or folder"),
        ([*there, "--include", str(big)], "the biggest: weights.bin 100.0 MiB"),
        ([*there, "--workers", "0"], "MIN:MAX such as 1:4, the smaller one first; found 0"),
        (
            [*there, "--workers", "4:2"],
            "cluster.workers: expected a number above 0, or MIN:MAX",
        ),
        (["--address", "http://127.0.0.1:9"], "no dashboard of Ray answers at http://127.0.0.1:9"),
        (["--address", "127.0.0.1:8265"], "expected that of the dashboard"),
    ):
        assert main(["jobs", "submit", str(path), *words]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said


def test_what_is_sent_is_the_document_the_code_and_what_was_named(shards: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / ".git").mkdir(parents=True)
    (mine / ".git" / "history").write_text("x")
    (mine / "objective.py").write_text("x = 1\n")
    target = tmp_path / "job"
    target.mkdir()
    pack(config(shards, tmp_path / "out"), target, [mine])
    sent = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    assert Path(DOCUMENT) in sent and Path("mine/objective.py") in sent
    assert {path.parts[0] for path in sent} == {
        DOCUMENT,
        "mine",
        "data_shards",
        "pretrain",
        "cluster",
        "finetune",
        "medformer",
    }
    assert all(path.suffix in (".py", ".yaml", ".css") for path in sent)
    assert sum((target / path).stat().st_size for path in sent) < 5 << 20


def test_a_status_is_what_was_written_and_other_lines_are_none() -> None:
    status = Status(30, 120, loss=1.5, elapsed_s=10.0, begun_at=10)
    assert parsed(status.line()) == status and status.left_s == 45.0
    assert parsed("loss 3") is None and parsed(status.line()[:-5]) is None
    assert Status(3).left_s is None


def test_secrets_of_the_environment_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.jobs.client import _environment

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hush@server:5000")
    assert "hush" not in " ".join(_environment().values())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert _environment()["MLFLOW_TRACKING_URI"] == "http://server:5000" and os.environ["MLFLOW_TRACKING_TOKEN"]
