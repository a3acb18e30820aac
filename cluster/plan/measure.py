"""The rate of a run on this machine, by some of its steps."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_shards.support.documents import parse, resolved
from data_shards.support.errors import ConfigError, MedformerError
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.meter import read_metrics
from pretrain.probes.config import ProbesConfig
from pretrain.runtime import TorchRuntime


@dataclass(frozen=True)
class Measured:
    """What some steps of one worker took.

    Attributes:
        device: where.
        rows: images in each step.
        steps: that count, the first two do not.
        images_per_s: by the median step, reading and views included.
        write_s: how long training waited for a checkpoint.
        checkpoint_bytes: size of that checkpoint.
    """

    device: str
    rows: int
    steps: int
    images_per_s: float
    write_s: float
    checkpoint_bytes: int


_WARM_UP = 2
_MARK = "measured: "


def measure(config: PretrainConfig, ranks: int, steps: int) -> Measured:
    """Take some steps as one worker of the run would, in a process and a folder that are thrown away.

    Args:
        config: the run.
        ranks: workers it is to have: the one here gets its share of the batch.
        steps: how many count.

    Raises:
        ConfigError: too few steps; or whatever keeps the run from starting.
    """
    if steps < 1:
        raise ConfigError(f"--measure {steps}: at least one step is expected")
    # In a process of its own: DeepSpeed keeps the process group of the first run that a process makes.
    asked = json.dumps({"config": resolved(config), "ranks": ranks, "steps": steps})
    finished = subprocess.run(
        [sys.executable, "-m", __name__],
        input=asked,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    told = [line.removeprefix(_MARK) for line in finished.stdout.splitlines() if line.startswith(_MARK)]
    if not told:
        raise ConfigError(f"--measure: the steps could not be taken: the process ended with {finished.returncode}")
    answer = json.loads(told[-1])
    if "error" in answer:
        raise ConfigError(answer["error"])
    return Measured(**answer)


def _measure(config: PretrainConfig, ranks: int, steps: int) -> Measured:
    rows = -(-config.data.batch_size // ranks)
    with tempfile.TemporaryDirectory(prefix="medformer-plan-") as folder:
        out = Path(folder) / "run"
        changed = config.model_copy(
            update={
                "out": out,
                "data": config.data.model_copy(update={"batch_size": rows, "curriculum": None}),
                "schedule": config.schedule.model_copy(update={"max_steps": steps + _WARM_UP, "epochs": 10**6}),
                "checkpoint": config.checkpoint.model_copy(update={"every_steps": 10**9}),
                "probes": ProbesConfig(),
                "log_every_steps": 1,
            }
        )
        runtime = _Watching()
        try:
            run(changed, runtime)
        finally:
            runtime.close()
        lines = read_metrics(out / "metrics.jsonl")[_WARM_UP:]
        size = sum(path.stat().st_size for path in (out / "checkpoints").rglob("*") if path.is_file())
    rate = statistics.median(line["images_per_s"] for line in lines)
    return Measured(runtime.device.type, rows, len(lines), rate, runtime.write_s, size)


class _Watching(TorchRuntime):
    """Notes how long it is from the last step to the checkpoint."""

    write_s = 0.0
    _since_s = 0.0

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        self._since_s = time.perf_counter()

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        self.write_s = time.perf_counter() - self._since_s


def main() -> None:
    """The process that takes the steps: what is asked comes on standard input."""
    asked = json.load(sys.stdin)
    try:
        config = parse(PretrainConfig, asked["config"], "measure")
        answer = asdict(_measure(config, asked["ranks"], asked["steps"]))
    except MedformerError as error:
        answer = {"error": str(error)}
    print(_MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
