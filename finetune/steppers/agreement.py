"""Cases whose gradients disagree with those of the others are left out, and asked again when they come back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.steppers.base import register_stepper
from finetune.steppers.epochs import ALL_LAYERS, EpochStepper
from finetune.steppers.recorder import Recorder, inner_products, learn_from


@register_stepper("agreement")
class AgreementStepper(EpochStepper):
    """Gradient agreement filtering by case, of the kind of Chaubard, Eddy and Kochenderfer, arXiv 2412.18052, 2024.

    The paper compares the mean gradients of microbatches by their cosine and leaves out those that are too far from the
    others. Here cases are compared (our reading, for few labels, some of which may be wrong). With the gradients
    ``g_i`` of all weights that are trained, the cases ``B_c`` of the batch of stratum ``c`` (their class), and the
    strata ``C`` that have a case other than ``i``,

    ``a_i = 1/|C| sum_{c in C} mean_{j in B_c, j != i} cos(g_i, g_j)``

    so that every case has one vote however large its gradient is, and every class one however many cases it has: the
    cases that are still wrong have the largest gradients, and the wrongly labelled stay wrong the longest. The vote
    of a case is averaged over the batches it was in, ``r_i <- memory r_i + (1 - memory) a_i`` from its first ``a_i``
    on, and a step follows the mean gradient of the cases with ``r_i >= threshold``, or of the share ``least`` with the
    highest ``r_i`` where these are more. A case that is left out is still drawn and may come back.

    For a linear model and squared or logistic loss, ``cos(g_i, g_j)`` is that of the features, with the sign of whether
    the residuals are on the same side: ``a_i`` is the margin by which the others, as a nearest-mean classifier, agree
    with the label.

    Raises:
        ConfigError: mixtures are asked for, which have two labels.
    """

    class Config(Document):
        """Who is left out."""

        threshold: float = Field(0.0, ge=-1, le=1, description="least agreement, a mean cosine; -1 keeps all")
        memory: float = Field(0.9, ge=0, lt=1, description="of the agreement of a case in earlier batches")
        least: float = Field(0.5, gt=0, le=1, description="share of a batch that is learned from at least")

    @classmethod
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """Mixtures have no agreement."""
        del config, batch_size
        if mixup:
            raise ConfigError("stepper agreement: a mixture has two labels and agrees with neither; leave mixup at 0")

    def begin(self) -> None:
        """Nothing is known of any case."""
        self.check(self.config, self.drawing.batch_size, self.drawing.mixup)
        super().begin()
        self._recorder = Recorder(self)
        self._strata_N = self.objective.target.strata(self.objective.labels)
        self._agreement: dict[int, float] = {}

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """The gradient of the mean loss of the cases that agree; returns the mean loss of the batch.

        Raises:
            ConfigError: a layer has no gradients by case, or the loss is reduced already.
            TrainingError: loss or gradients are not finite.
        """
        if self.config.threshold == -1 or self.config.least == 1:
            loss, kept_B = super().descend_along(batch, number, share), np.ones(len(batch), dtype=bool)
        else:
            loss, layers = self._recorder.record(batch, np.arange(len(batch)), number, share)
            now_B = agreement(inner_products(layers, number).sum(axis=0), self._strata_N[batch])
            kept_B = kept(self._remembered(batch, now_B), self.config.threshold, self.config.least)
            if kept_B.all():
                loss = self._recorder.whole(batch, number, share, loss)
            else:
                for layer in layers:
                    learn_from(layer, kept_B * (len(batch) / kept_B.sum()))
        self.chose(batch, number, {ALL_LAYERS: kept_B})
        return loss

    def _remembered(self, batch: np.ndarray, now_B: np.ndarray) -> np.ndarray:
        """The agreement of each case over all batches it was in, this one included."""
        memory = self.config.memory
        for case, now in zip(batch.tolist(), now_B.tolist(), strict=True):
            self._agreement[case] = memory * self._agreement.get(case, now) + (1 - memory) * now
        return np.array([self._agreement[case] for case in batch.tolist()])


def agreement(gram_BB: np.ndarray, stratum_B: np.ndarray) -> np.ndarray:
    """``a_i`` of each case, see :class:`AgreementStepper`; 0 for one without a gradient, and for one that is alone.

    Args:
        gram_BB: inner products of the gradients by case.
        stratum_B: the stratum of each case.
    """
    norm_B = np.sqrt(np.diagonal(gram_BB).clip(min=0))
    unit_B = np.divide(1, norm_B, out=np.zeros_like(norm_B), where=norm_B > 0)
    cosine_BB = gram_BB * unit_B[:, None] * unit_B
    np.fill_diagonal(cosine_BB, 0)
    member_CB = (stratum_B == np.unique(stratum_B)[:, None]).astype(np.float64)
    others_BC = member_CB.sum(axis=1) - member_CB.T  # those of each stratum, a case itself not counted
    mean_BC = (cosine_BB @ member_CB.T) / others_BC.clip(min=1)
    found: np.ndarray = mean_BC.sum(axis=1) / (others_BC > 0).sum(axis=1).clip(min=1)
    return found


def kept(agreement_B: np.ndarray, threshold: float, least: float) -> np.ndarray:
    """Those at or above the threshold, or the given share with the highest agreement where these are more; bool."""
    count = max(int((agreement_B >= threshold).sum()), math.ceil(least * len(agreement_B) - 1e-9))
    mask_B = np.zeros(len(agreement_B), dtype=bool)
    mask_B[np.argsort(-agreement_B, kind="stable")[:count]] = True
    return mask_B
