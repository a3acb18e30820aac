"""Each weight follows its gradient as far as the cases agree about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.steppers.base import register_stepper
from finetune.steppers.epochs import ALL_LAYERS, EpochStepper
from finetune.steppers.recorder import Recorder, not_finite


@register_stepper("variance_adapted")
class VarianceAdaptedStepper(EpochStepper):
    """Balles and Hennig, Dissecting Adam: the sign, magnitude and variance of stochastic gradients, ICML 2018.

    Their optimal factors multiply every number of a stochastic gradient by ``1 / (1 + s^2 / d^2)``, with its variance
    ``s^2`` and its expectation ``d``, which brings it nearest to ``d`` in the mean square. DBA chooses, for each layer,
    cases whose gradients vary little; this keeps all cases and chooses, for each weight, how far they are believed.

    The paper estimates from the course of training. Here (our reading) the ``n`` cases of the batch are asked: with the
    mean ``m`` of their gradients and ``s^2 = strength / n`` times their unbiased variance, ``m^2 - s^2`` estimates
    ``d^2``, and the factor becomes

    ``max(0, 1 - s^2 / m^2)``

    so that a weight whose gradient is within its standard error does not move (weight decay and momentum aside). With
    few labels these are most: what all cases say by chance alone is not learned. It is the variance of drawing cases
    from all there could be; a batch of all given cases has one, too.
    """

    class Config(Document):
        """How much is doubted."""

        strength: float = Field(1.0, ge=0, description="factor of the variance; with 0 it is the plain stepper")

    @classmethod
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """There is a variance."""
        del mixup
        if config.strength and batch_size < 2:
            raise ConfigError("stepper variance_adapted: one case has no variance; batch_size is 2 or above")

    def begin(self) -> None:
        """Nothing was left out."""
        self.check(self.config, self.drawing.batch_size, self.drawing.mixup)
        super().begin()
        self._recorder = Recorder(self)
        self._left: list[float] = []

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """The mean gradient, each number of it times its factor; returns the mean loss of the batch.

        Raises:
            ConfigError: a layer has no gradients by case, or the loss is reduced already.
            TrainingError: loss or gradients are not finite.
        """
        if not self.config.strength or len(batch) == 1:
            loss = super().descend_along(batch, number, share)
        else:
            loss, layers = self._recorder.record(batch, np.arange(len(batch)), number, share)
            ones_B = torch.ones(len(batch))
            before = after = 0.0
            for layer in layers:
                squares = layer.squares()
                device = next(iter(squares)).device
                for parameter, mean in layer.weighted(ones_B.to(device)).items():
                    if not bool(torch.isfinite(mean).all()):
                        raise not_finite(layer, number)
                    parameter.grad = believed(mean, squares[parameter], len(batch), self.config.strength)
                    before += float(mean.square().sum())
                    after += float(parameter.grad.square().sum())
            self._left.append((after / before) ** 0.5 if before else 1.0)
        self.chose(batch, number, {ALL_LAYERS: np.ones(len(batch), dtype=bool)})
        return loss

    @property
    def report(self) -> dict[str, Any]:
        """With how long steps were, as a share of the mean gradient, in the mean."""
        return {**super().report, **({"believed": float(np.mean(self._left))} if self._left else {})}


def believed(mean: Tensor, squares: Tensor, cases: int, strength: float) -> Tensor:
    """A mean gradient, each number of it times its factor, see :class:`VarianceAdaptedStepper`.

    Args:
        mean: of so many cases, of any shape.
        squares: summed squares of what each case adds to the mean.
        cases: at least 2.
        strength: factor of the variance.
    """
    # Gradients by case are as many times what they add to the mean as there are cases.
    error = strength * (cases * squares - mean.square()).clamp(min=0) / (cases - 1)
    squared = mean.square()
    return torch.where(squared > 0, mean * (1 - error / squared).clamp(min=0), 0)
