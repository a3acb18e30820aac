"""Steps of dynamic batch adaptation against plain steps, and its gradients by sample against those of Opacus."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from benchmarks.interleaved import interleaved
from benchmarks.live_tensors import LiveTensors
from benchmarks.table import Table
from finetune.objective import Objective
from finetune.steppers import STEPPERS, Drawing, Stepper
from finetune.targets import create_target
from pretrain.backbone.attention import SelfAttentionLayer

PAIRS = 21
CLASSES = 10
SELECTION = "variance_norm"


@dataclass(frozen=True)
class Case:
    """One network with its batch.

    Attributes:
        name: of the network.
        make: it.
        shape: of a sample.
        batch_size: samples of a step.
        stride: samples that are chosen together.
        norms: whether no layer needs more than inner products of rows.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_size: int
    stride: int
    norms: bool = False


class Tokens(nn.Module):
    """Layers of self-attention on tokens, and a linear layer on their mean."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(SelfAttentionLayer(dim, 4) for _ in range(layers)))
        self.linear = nn.Linear(dim, CLASSES)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Logits."""
        logits_BK: Tensor = self.linear(self.layers(x_BTD).mean(dim=1))
        return logits_BK


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
    )


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 49, CLASSES),
    )  # fmt: skip


def backbone() -> nn.Module:
    model: nn.Module = timm.create_model("medformer_nano", num_classes=CLASSES, in_chans=1)
    return model


CASES = (
    Case("perceptron 784-256-256-10", lambda: perceptron(256), (784,), 64, 1, norms=True),
    Case("perceptron 784-1024-1024-10", lambda: perceptron(1024), (784,), 64, 1, norms=True),
    Case("perceptron 784-1024-1024-10, strides of 8", lambda: perceptron(1024), (784,), 64, 8, norms=True),
    Case("two convolutions", convolutions, (1, 28, 28), 64, 1),
    Case("four layers of attention, 50 tokens", lambda: Tokens(128, 4), (50, 128), 16, 1),
    Case("four layers of attention, 50 tokens, strides of 4", lambda: Tokens(128, 4), (50, 128), 16, 4),
    Case("medformer_nano, 28 x 28, strides of 2", backbone, (1, 28, 28), 16, 2),
)


class Learner:
    """Learns classes of noise, all samples at once."""

    at_once = 1 << 30

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.module = case.make()
        self.readout = self.module
        self.x = torch.randn(case.batch_size, *case.shape)

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """Of each case."""
        return objective.per_case(self.module(self.x[torch.from_numpy(rows)]), rows)


def run(cases: tuple[Case, ...] = CASES, pairs: int = PAIRS) -> Table:
    """A row for each network."""
    rows = [_row(case, pairs) for case in cases]
    theirs = f"It is version {version('opacus')}." if _has_opacus() else "It is not installed here: no figure."
    return Table(
        title="Gradients by sample",
        command="python -m benchmarks per_sample",
        columns=("network", "batch", "groups", "plain step, ms", "DBA : plain", "DBA : Opacus", "memory, DBA : plain"),
        rows=tuple(rows),
        remarks="Whole steps on one thread, in time of the processor: draw, forward and backward pass, and for DBA the "
        "inner products of all groups in every layer, the choice by variance_norm, and the gradients of what was "
        "chosen. Opacus makes gradients by sample "
        "(hooks) and neither compares nor chooses, so its time is that of less. Medians of pairs in turn, and the 95 % "
        "interval of the ratio. Memory is the peak of tensors in a step, weights included. Bars: at most 2 times a "
        "plain step in time and memory where inner products of rows are enough (perceptrons), else at most a third of "
        f"the time of Opacus. {theirs}",
    )  # fmt: skip


def _row(case: Case, pairs: int) -> tuple[str, ...]:
    plain, dba = (_stepper(case, name) for name in ("plain", "dba"))
    first, second = _steps(dba), _steps(plain)
    to_plain = interleaved(first, second, pairs=pairs)
    to_opacus = "–"
    if _has_opacus() and case.make is not backbone:
        to_opacus = interleaved(first, _opacus(case), pairs=pairs).text
    memory = _peak(dba, first) / _peak(plain, second)
    return (
        case.name, str(case.batch_size), str(case.batch_size // case.stride), f"{to_plain.second_s * 1e3:.2f}",
        to_plain.text, to_opacus, f"{memory:.2f}",
    )  # fmt: skip


def _stepper(case: Case, name: str) -> Stepper:
    learner = Learner(case)
    target = create_target("multiclass", [str(number) for number in range(CLASSES)])
    labels = np.arange(case.batch_size)[:, None] % CLASSES
    objective = Objective.of(target, labels, balanced=False, drawn_evenly=False, loss="nll")
    options: dict[str, Any] = {}
    if name == "dba":
        least = case.batch_size // 4
        options = {"selection": SELECTION, "stride": case.stride, "min_batch": least}
        options["max_batch"] = case.batch_size
    optimizer = torch.optim.AdamW(learner.module.parameters(), lr=1e-4)
    drawing = Drawing(case.batch_size, 0)
    rows = np.arange(case.batch_size)
    return STEPPERS.named(name)(learner, objective, optimizer, rows, drawing, STEPPERS.config(name, options))  # type: ignore[arg-type]


def _steps(stepper: Stepper) -> Callable[[], object]:
    stepper.learner.module.train()
    return lambda: stepper.step(0)


def _peak(stepper: Stepper, step: Callable[[], object]) -> float:
    """Bytes of all tensors at the peak of a step that is not the first."""
    step()
    stepper.optimizer.zero_grad(set_to_none=True)
    live = LiveTensors()
    moments = [each for state in stepper.optimizer.state.values() for each in state.values()]
    live.count(*stepper.learner.module.parameters(), *(each for each in moments if isinstance(each, Tensor)))
    with live:
        step()
    return float(live.peak)


def _has_opacus() -> bool:
    return importlib.util.find_spec("opacus") is not None


def _opacus(case: Case) -> Callable[[], object]:
    from opacus import GradSampleModule

    learner = Learner(case)
    network = GradSampleModule(learner.module, loss_reduction="sum")
    labels = torch.arange(case.batch_size) % CLASSES

    def step() -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(learner.x), labels, reduction="sum").backward()

    return step
