"""What the audits of DBA train: a small network on vectors, and a record of which it was trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures
from finetune.heads.linear import LinearHead
from finetune.objective import Objective
from finetune.random_state import seeded
from finetune.targets import Target

WIDTH = 64


class Perceptron(nn.Module):
    """64 units with a ReLU on features, and a linear head, as steppers know it.

    Args:
        inputs: numbers of a case.
        target: what is told of it.
    """

    def __init__(self, inputs: int, target: Target) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, WIDTH)
        head = LinearHead(WIDTH, target.outputs, LinearHead.Config(reads="embedding"))
        head.linear.reset_parameters()
        self.readout = Readout.of(head, target)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        logits: Tensor = self.readout(CaseFeatures(self.hidden(features_BD).relu()))
        return logits


class Vectors:
    """A perceptron and vectors for it; which rows it was trained on is kept.

    Args:
        features_ND: of all cases, such as standardised pixels.
        target: what is told of them.
        seed: of the weights, which are drawn as torch draws them.

    Attributes:
        seen_N: whether a row took part in a training step, bool.
    """

    def __init__(self, features_ND: Tensor, target: Target, seed: int) -> None:
        self.features_ND = features_ND
        self.seen_N = np.zeros(len(features_ND), dtype=bool)
        with seeded(seed):
            self.module = Perceptron(features_ND.shape[1], target)

    @property
    def at_once(self) -> int:
        """There is always room."""
        return len(self.features_ND)

    @property
    def readout(self) -> Readout:
        """The last layer."""
        return self.module.readout

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits; in a training step the rows count as seen."""
        if step is not None:
            self.seen_N[rows] = True
        found: Tensor = self.module(self.features_ND[torch.from_numpy(rows)])
        return found

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """The loss of each row in a training step."""
        return objective.per_case(self.logits(rows, step), rows)

    def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[Tensor, np.ndarray]:
        """Not here."""
        raise ConfigError("the audit mixes no images")
