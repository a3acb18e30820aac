"""Real pretraining runs of a tiny network: documents, processes, and a runtime for runs inside this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file

from pretrain.meter import read_metrics

STEPS = 50
EVERY = 10
_LIMIT_S = 240


def document(shards: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A run of ``STEPS`` steps with all objectives. ``changes`` replace whole top-level keys.

    Adam divides the gradient by its own size: a parameter whose gradient is zero but for rounding (a bias before a
    batch norm, say) takes steps of random sign and full length. A larger ``eps`` keeps runs comparable whose sums are
    rounded differently.
    """
    return {
        "out": str(out),
        "seed": 3,
        "data": {"datasets": [{"path": str(shards)}], "batch_size": 16},
        "model": {"kwargs": {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}},
        "objectives": {
            "barlow_twins": {"hidden": 16, "out": 16, "weight": 0.1},
            "byol": {"hidden": 16, "out": 8},
            "simclr": {"hidden": 16, "out": 8},
        },
        "optimizer": {"lr": 1e-3, "kwargs": {"eps": 1e-4}},
        "schedule": {"epochs": 10, "max_steps": STEPS},
        "checkpoint": {"every_steps": EVERY},
        "log_every_steps": 1,
        "health": {"min_embedding_std": 0.0},
        "cluster": {"threads_per_worker": 1},
        **changes,
    }


def write_document(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(content)))
    return path


@dataclass
class Started:
    """A pretraining process with its output in files."""

    process: subprocess.Popen[bytes]
    log: Path

    def expect(self, status: int) -> str:
        """Wait for the exit; standard error and output together."""
        found = self.process.wait(_LIMIT_S)
        text = self.log.read_text()
        assert found == status, f"exit status {found}, expected {status}:\n{text}"
        return text

    def wait_until(self, happened: Callable[[], bool]) -> None:
        limit = time.monotonic() + _LIMIT_S
        while not happened():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < limit, "nothing happened"
            time.sleep(0.002)


@dataclass
class Run:
    """A document and the folder its output goes to."""

    config: Path
    out: Path

    def start(self, *arguments: str, workers: int = 1, preexec: Callable[[], None] | None = None) -> Started:
        launcher = (
            [] if workers == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        )
        log = self.config.with_name(f"log-{time.monotonic_ns()}.txt")
        environment = {key: value for key, value in os.environ.items() if key not in GROUP_VARIABLES}
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, *launcher, "-m", "pretrain", str(self.config), *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**environment, "OMP_NUM_THREADS": "1"},
                cwd=Path(__file__).parents[2],
                preexec_fn=preexec,
                start_new_session=True,
            )
        return Started(process, log)

    def metrics(self) -> list[dict[str, float]]:
        return read_metrics(self.out / "metrics.jsonl")

    def steps_logged(self) -> int:
        path = self.out / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.out / "bundle" / "model.safetensors")


# A group that this process has joined is none of the children's business.
GROUP_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def assert_equal_bits(found: Run, expected: Run) -> None:
    """Same weights bit for bit, and the same record but for the clock."""
    mine, theirs = ((run.out / "bundle" / "model.safetensors").read_bytes() for run in (found, expected))
    assert mine == theirs
    assert untimed(found.metrics()) == untimed(expected.metrics())


def untimed(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in ("data_wait", "images_per_s")} for line in lines]


def relative_difference(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> float:
    """Norm of the difference of all weights together, over the norm of the weights."""
    assert set(found) == set(expected)
    difference = sum(float((found[k].double() - expected[k].double()).square().sum()) for k in expected)
    return (difference / sum(float(w.double().square().sum()) for w in expected.values())) ** 0.5


class GroupRuntime:
    """Surroundings of the engine in a process group that exists already.

    Args:
        stop_after: the step after which the run is asked to stop, as by SIGTERM; it must be logged.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self.rank = self.local_rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.attempt = 0
        self.device = torch.device("cpu")
        self.reported: list[int] = []
        self.saved: list[tuple[Path, int]] = []
        self._stop_after = stop_after

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        self.reported.append(step)

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        assert folder.is_dir(), "a checkpoint is announced when it is complete"
        self.saved.append((folder, step))

    def stop_requested(self) -> bool:
        return self._stop_after is not None and len(self.reported) + 1 >= self._stop_after
