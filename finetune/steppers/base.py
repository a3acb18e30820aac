"""What a stepper is: it draws batches and takes optimizer steps, and where steppers are found by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.errors import TrainingError
from data_shards.support.registry import Registry
from finetune.objective import Objective


class Learner(Protocol):
    """What is trained, and how it is applied to the given cases."""

    module: nn.Module

    @property
    def readout(self) -> Any:
        """The part of the module that makes logits, and losses of cases, of features."""
        ...

    @property
    def at_once(self) -> int:
        """How many cases memory has room for in a training step."""
        ...

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the given cases at ``rows``; augmented for training step ``step``, plain when it is None."""
        ...

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """The weighted loss of each case at ``rows`` in training step ``step``, with what its head adds, ``(B,)``."""
        ...

    def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[Tensor, np.ndarray]:
        """Logits of mixtures, ``share`` of each case and the rest of another one, and the rows of those others."""
        ...


@dataclass(frozen=True)
class Drawing:
    """How batches are drawn, and what is done to them.

    Attributes:
        batch_size: cases per step; all of them when they are fewer.
        seed: fixes the batches.
        evenly: every class equally often, whatever its frequency.
        mixup: parameter of the Beta distribution of the shares of mixtures (Zhang et al., ICLR 2018); 0 for none.
        clip_norm: bound on the norm of the gradient.
    """

    batch_size: int
    seed: int
    evenly: bool = False
    mixup: float = 0.0
    clip_norm: float = 1.0


class Stepper(abc.ABC):
    """Takes training steps. One is made for each stage of a fit.

    Args:
        learner: what is trained.
        objective: of all given cases.
        optimizer: over the parameters of this stage; its rates are set from outside.
        rows: the cases to train on.
        drawing: how batches are drawn.
        config: the stepper's own options.

    Attributes:
        Config: the options.
        learns_unlabelled: whether it learns from unlabelled cases too, which are then required.
        mixes: whether it mixes labelled and unlabelled cases, which then have one size.
        needs_backbone: whether it is for strategies that train the backbone alone.
    """

    class Config(Document):
        """No options."""

    name: ClassVar[str]
    learns_unlabelled: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    needs_backbone: ClassVar[bool] = False

    def __init__(
        self,
        learner: Learner,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        rows: np.ndarray,
        drawing: Drawing,
        config: Any,
    ) -> None:
        self.learner, self.objective, self.optimizer = learner, objective, optimizer
        self.rows, self.drawing, self.config = rows, drawing, config
        self.begin()

    @classmethod  # noqa: B027 (most take any)
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """Refuse options that do not fit how batches are drawn, before anything is computed.

        Args:
            config: the stepper's own options.
            batch_size: of :class:`Drawing`.
            mixup: likewise.

        Raises:
            ConfigError: says which, and what is expected.
        """

    def begin(self) -> None:  # noqa: B027 (some have nothing to set up)
        """Set up what the steps need; all that was given is there already."""

    @abc.abstractmethod
    def batch_size(self, epoch: int) -> int:
        """Cases per step in an epoch."""

    @abc.abstractmethod
    def step(self, number: int) -> float:
        """Take step ``number``, counted from 0 over all stages; returns the loss before it.

        Raises:
            TrainingError: the loss is not finite.
        """

    @property
    def report(self) -> dict[str, Any]:
        """What it did, for the record."""
        return {}


STEPPERS: Registry[Stepper] = Registry("stepper")
register_stepper = STEPPERS.register


def backward(loss: Tensor, number: int, *, of: str = "the loss", smaller: str = "learning rate") -> float:
    """Add the gradient of a loss; returns the loss.

    Args:
        loss: a scalar.
        number: of the step.
        of: what it is in a message.
        smaller: what would help.

    Raises:
        TrainingError: it is not finite.
    """
    if not torch.isfinite(loss):
        raise TrainingError(f"fine-tuning: {of} is {loss.item()} at step {number}; try a smaller {smaller}")
    loss.backward()
    return float(loss.detach())


def permutations(rows: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Endless seeded permutations of ``rows``."""
    generator = np.random.default_rng(seed)
    while True:
        yield generator.permutation(rows)


def even_draws(rows: np.ndarray, strata_N: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Endless epochs in which every stratum is drawn equally often, and within it every case as often as it can be.

    Args:
        rows: the cases.
        strata_N: the stratum of each of all given cases.
        seed: fixes them.
    """
    generator = np.random.default_rng(seed)
    members = [rows[strata_N[rows] == stratum] for stratum in np.unique(strata_N[rows])]
    queues = [permutations(member, int(generator.integers(2**63))) for member in members]
    waiting: list[list[int]] = [[] for _ in members]
    share = max(1, round(len(rows) / len(members)))
    while True:
        epoch: list[int] = []
        for number, queue in enumerate(queues):
            while len(waiting[number]) < share:
                waiting[number] += next(queue).tolist()
            epoch += waiting[number][:share]
            waiting[number] = waiting[number][share:]
        yield generator.permutation(np.array(epoch))


def cut(epochs: Iterator[np.ndarray], batch_size: int | Callable[[], int]) -> Iterator[np.ndarray]:
    """Batches cut from an endless sequence, across its epochs; all of one size, or of what is said before each."""
    queue = np.empty(0, dtype=np.int64)
    while True:
        size = batch_size if isinstance(batch_size, int) else batch_size()
        while len(queue) < size:
            queue = np.concatenate([queue, next(epochs)])
        yield queue[:size]
        queue = queue[size:]
