"""Batches that grow when their gradient says too little about that of all cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.steppers.base import register_stepper
from finetune.steppers.epochs import ALL_LAYERS, EpochStepper
from finetune.steppers.recorder import Recorder, inner_products


@register_stepper("norm_test")
class NormTestStepper(EpochStepper):
    """Byrd, Chin, Nocedal and Wu, Sample size selection in optimization methods for machine learning, 2012.

    Mathematical Programming 134. A batch ``S`` of ``n`` of the ``N`` given cases is large enough if the expected
    squared error of its mean gradient ``g`` is at most ``theta^2 ||g||^2``. With ``v`` the sum over all weights of the
    unbiased variance of gradients by case, and batches drawn without replacement,

    ``v (1 / n - 1 / N) <= theta^2 ||g||^2``, so that ``n >= v / (v / N + theta^2 ||g||^2)``.

    The finite number of cases, which the paper drops, counts where labels are few: all of them have no error.

    The paper tests every batch. Here the batch of the next epoch is what the means of ``v`` and ``||g||^2`` over the
    steps of the last one ask for, and never smaller than before (our reading). The step itself is that of the plain
    stepper on each batch, bit for bit.
    """

    class Config(Document):
        """How exact the gradient is to be."""

        theta: float = Field(1.0, gt=0, description="error of the batch's gradient, as a share of its length")
        max_batch: int | None = Field(None, ge=2, description="most cases of a batch; all there are by default")

    @classmethod
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """There is a variance."""
        del mixup
        if batch_size < 2:
            raise ConfigError("stepper norm_test: one case has no variance; batch_size is 2 or above")
        if config.max_batch is not None and config.max_batch < batch_size:
            raise ConfigError(f"stepper norm_test: max_batch {config.max_batch} is below batch_size {batch_size}")

    def begin(self) -> None:
        """Nothing was measured."""
        self.check(self.config, self.drawing.batch_size, self.drawing.mixup)
        super().begin()
        self._recorder = Recorder(self)
        self._measured: list[tuple[float, float]] = []

    def next_epoch(self, selected: list[int]) -> int:
        """As large as the test asks for."""
        del selected
        now, cases = self.next_size(), len(self.rows)
        if not self._measured:
            return now
        variance, squared_norm = np.mean(self._measured, axis=0).tolist()
        self.log("variance", variance)
        self.log("squared_norm", squared_norm)
        self._measured = []
        most = cases if self.config.max_batch is None else min(cases, self.config.max_batch)
        return max(now, min(most, enough(variance, squared_norm, self.config.theta, cases)))

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """The gradient of the mean loss, and its variance; returns the mean loss of the batch.

        Raises:
            ConfigError: a layer has no gradients by case, or the loss is reduced already.
            TrainingError: loss or gradients are not finite.
        """
        if len(batch) in (1, len(self.rows)):  # nothing to measure, or nothing to gain
            loss = super().descend_along(batch, number, share)
        else:
            loss, layers = self._recorder.record(batch, np.arange(len(batch)), number, share)
            gram_BB = inner_products(layers, number).sum(axis=0)
            self._measured.append(variance_and_squared_norm(gram_BB))
            loss = self._recorder.whole(batch, number, share, loss)
        self.chose(batch, number, {ALL_LAYERS: np.ones(len(batch), dtype=bool)})
        return loss


def variance_and_squared_norm(gram_BB: np.ndarray) -> tuple[float, float]:
    """The summed unbiased variance of gradients by case, and the squared norm of their mean.

    Args:
        gram_BB: inner products of what each case adds to the mean gradient, at least 2.
    """
    count = len(gram_BB)
    squared_norm = float(gram_BB.sum())
    squares = count * float(np.trace(gram_BB))  # the mean squared norm of gradients by case
    return max(0.0, count / (count - 1) * (squares - squared_norm)), squared_norm


def enough(variance: float, squared_norm: float, theta: float, cases: int) -> int:
    """The fewest of so many cases that pass the test, see :class:`NormTestStepper`; 1 where nothing varies."""
    if variance <= 0:
        return 1
    return min(cases, math.ceil(variance / (variance / cases + theta**2 * squared_norm)))
