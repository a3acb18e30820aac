"""The rate of a run on this machine, by some of its steps."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_shards.support.errors import ConfigError
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


def measure(config: PretrainConfig, ranks: int, steps: int) -> Measured:
    """Take some steps as one worker of the run would, in a folder that is thrown away.

    Args:
        config: the run.
        ranks: workers it is to have: the one here gets its share of the batch.
        steps: how many count.

    Raises:
        ConfigError: too few steps; or whatever keeps the run from starting.
    """
    if steps < 1:
        raise ConfigError(f"--measure {steps}: at least one step is expected")
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
