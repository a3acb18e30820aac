"""One run with one fault, and what is true of it afterwards."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from cluster.ray_runtime import read_attempt
from data_shards.support.documents import parse
from data_shards.support.files import sha256_of
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.meter import read_metrics
from tests.chaos.faults import KINDS, LIMIT_S, Running
from tests.chaos.stage import Stage
from tests.pretrain.runs import document
from tests.small_disk import small_disk

STEPS, EVERY = 60, 4
EARLIEST, LATEST = 6, 30
"""Between which steps the fault comes."""
DISK_BYTES = 64 << 20


@dataclass
class Outcome:
    """What came of a trial.

    Attributes:
        fault: its kind.
        number: which of its kind.
        step: after which it came.
        committed: step of the newest complete checkpoint then.
        recovered_s: from the fault to the first step that was taken after it; None if none had to be retaken.
        attempts: how often workers were started again.
        told: what a person had to do.
        wrong: what is not as it must be; empty when all is.
    """

    fault: str
    number: int
    step: int = 0
    committed: int = 0
    recovered_s: float | None = None
    attempts: int = 0
    told: str = ""
    wrong: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)


def config_of(shards: Path, out: Path, uri: str) -> PretrainConfig:
    """The run; every trial has the same but for its folder."""
    schedule, checkpoint = {"epochs": 100, "max_steps": STEPS}, {"every_steps": EVERY, "keep": 1000}
    content = document(shards, out, schedule=schedule, checkpoint=checkpoint)
    content["data"]["batch_size"] = 32
    content["cluster"] = {
        "threads_per_worker": 1, "workers": 2, "tracking_uri": uri, "experiment": "chaos", "max_failures": 3,
        "hang_after_s": 30,
    }  # fmt: skip
    return parse(PretrainConfig, content, "chaos")


def unbroken(stage: Stage, shards: Path, folder: Path) -> str:
    """The digest of the weights of a run that nothing happens to."""
    config = config_of(shards, folder / "unbroken", stage.server.uri)
    bundle = config.out / "bundle" / "model.safetensors"
    if not bundle.is_file():
        stage.submit(config, "unbroken")
        job = stage.wait_for_end("unbroken", LIMIT_S)
        assert job.state == "SUCCEEDED", stage.jobs().logs("unbroken")
    return sha256_of(bundle)


def trial(stage: Stage, shards: Path, folder: Path, kind: str, number: int, seed: int, expected: str) -> Outcome:
    """Begin a run, do it harm, wait for its end, and look.

    Args:
        stage: where.
        shards: the images.
        folder: for the run.
        kind: one of :data:`~tests.chaos.faults.KINDS`.
        number: which of its kind.
        seed: of when the fault comes and whom it meets.
        expected: digest of the weights of the unbroken run.
    """
    outcome = Outcome(kind, number)
    draw = random.Random(f"{seed} {kind} {number}")
    name = f"{kind.replace(' ', '-').lower()}-{number}"
    with contextlib.ExitStack() as stack:
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)  # of a trial that was cut short
        if kind == "disk full at a checkpoint":
            stack.enter_context(small_disk(place, DISK_BYTES))
        config = config_of(shards, place / "run", stage.server.uri)
        run = Running(stage, config, name, draw)
        stage.submit(config, name)
        at = draw.randint(EARLIEST, LATEST)
        run.wait_for(lambda: _steps(config.out) >= at, f"step {at}")
        newest = run.store.latest()
        outcome.step, outcome.committed = _steps(config.out), 0 if newest is None else newest.step
        with _Recovery(config.out, outcome.step) as recovery:
            KINDS[kind][0](run)
            job = run.ended()
        outcome.recovered_s = recovery.after_s
        outcome.told = ", ".join(dict.fromkeys(run.told))
        outcome.attempts = read_attempt(config.out) or 0
        if job.state != "SUCCEEDED":
            outcome.wrong.append(f"the job is {job.state.lower()}: {stage.jobs().logs(run.name)[-600:]}")
        else:
            outcome.wrong += _looked_at(run, outcome, expected)
    return outcome


def _steps(out: Path) -> int:
    path = out / "metrics.jsonl"
    return int(read_metrics(path)[-1]["step"]) if path.is_file() and path.stat().st_size else 0


class _Recovery:
    """Watches how long it takes until workers that were started after the fault have gone beyond its step.

    Attributes:
        after_s: so long; None while nothing was started anew.
    """

    def __init__(self, out: Path, step: int) -> None:
        self.after_s: float | None = None
        self._out, self._step, self._before = out, step, read_attempt(out)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Recovery:
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            if read_attempt(self._out) != self._before and _steps(self._out) > self._step:
                self.after_s = time.monotonic() - self._began_s
                return


def _looked_at(run: Running, outcome: Outcome, expected: str) -> list[str]:
    """What is wrong with a run that has ended."""
    out, wrong = run.config.out, []
    if outcome.attempts == 0 and "tracking server" not in outcome.fault:
        wrong.append("no workers were started again: the fault came to nothing")
    if sha256_of(out / "bundle" / "model.safetensors") != expected:
        wrong.append("the weights are not those of the unbroken run")
    steps = [int(line["step"]) for line in read_metrics(out / "metrics.jsonl")]
    if steps != list(range(1, STEPS + 1)):
        wrong.append(f"the curves have steps {steps}")
    lost = [
        each.folder.name
        for each in CheckpointStore(out / "checkpoints").complete()
        if each.attempt > 0 and each.step <= outcome.committed and "checkpoint removed" not in run.told
    ]
    if lost:
        wrong.append(f"committed steps were trained again: {lost}")
    if list((out / "checkpoints").glob(".step-*")):
        wrong.append("half-written checkpoints lie about")
    client = MlflowClient(run.stage.server.uri)
    experiment = client.get_experiment_by_name("chaos")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    ours = [each for each in runs if each.data.tags.get("medformer.out") == str(out)]
    ours = [each for each in ours if each.info.start_time >= 1000 * run.began_s]  # a trial that was cut short left one
    if len(ours) != 1:
        wrong.append(f"{len(ours)} runs are tracked")
    else:
        told = [point.step for point in client.get_metric_history(ours[0].info.run_id, "loss")]
        if sorted(set(told)) != list(range(1, STEPS + 1)):
            wrong.append(f"the tracked curve lacks steps {sorted(set(range(1, STEPS + 1)) - set(told))}")
    return wrong
