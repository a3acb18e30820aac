"""Small learners that steppers are tried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.fit.loop import Recipe
from finetune.objective import Objective
from finetune.steppers import STEPPERS, Drawing, Stepper
from finetune.strategies import Stage
from finetune.targets import create_target


class Perceptron(nn.Module):
    """Three linear layers with dropout, which has losses as a readout has."""

    def __init__(self, width: int = 12, dropout: float = 0.3) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.first(x).relu())
        return self.last(self.norm(hidden + self.middle(hidden).relu()))


class Cut:
    """Learns numbers; at most ``at_once`` cases go together."""

    def __init__(self, network: nn.Module, x: Tensor, at_once: int = 1000) -> None:
        self.module, self.readout, self.x, self.at_once = network, network, x, at_once
        self.seen: list[list[int]] = []

    def stages(self) -> list[Stage]:
        return [Stage("all", [{"params": list(self.module.parameters()), "lr": 0.02, "weight_decay": 0.01}])]

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        return self.module(self.x[torch.from_numpy(rows)])

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        self.seen.append(rows.tolist())
        return objective.per_case(self.logits(rows, step), rows)

    def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[Tensor, np.ndarray]:
        others = np.roll(rows, 1)
        first, second = (self.x[torch.from_numpy(each)] for each in (rows, others))
        return self.module(share * first + (1 - share) * second), others


def objective(count: int, target: str = "binary") -> Objective:
    names = "ab" if target == "binary" else "abc"
    labels = np.arange(count)[:, None] % len(names)
    return Objective.of(create_target(target, names), labels, balanced=False, drawn_evenly=False, loss="nll")


def perceptron(count: int, seed: int = 0, at_once: int = 1000, **options: Any) -> Cut:
    torch.manual_seed(seed)
    x = torch.randn(count, 6)
    x[:, 0] += 2.0 * (torch.arange(count) % 2)
    return Cut(Perceptron(**options), x, at_once)


def stepper_on(
    learner: Any, name: str, options: dict[str, Any], *, batch_size: int = 8, mixup: float = 0.0, count: int = 20
) -> Stepper:
    optimizer = torch.optim.SGD(learner.module.parameters(), lr=0.05, momentum=0.9)
    drawing = Drawing(batch_size, 0, mixup=mixup)
    learner.module.train()
    given = objective(count)
    return STEPPERS.named(name)(learner, given, optimizer, np.arange(count), drawing, STEPPERS.config(name, options))


def recipe(name: str, options: dict[str, Any], steps: int, batch_size: int = 8) -> Recipe:
    config = STEPPERS.config(name, options)
    return Recipe(max_steps=steps, drawing=Drawing(batch_size, 0), stepper=name, stepper_config=config)
