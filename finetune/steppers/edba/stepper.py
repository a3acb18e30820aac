"""EDBA: all layers step along the subset of the batch after which the last layer would be most clearly right."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.errors import ConfigError, TrainingError
from finetune.heads import CaseFeatures
from finetune.per_sample import LayerGradients, Tape
from finetune.per_sample.tape import check_unreduced
from finetune.random_state import random_state, return_to
from finetune.steppers.base import register_stepper
from finetune.steppers.dba.adaptive import AdaptiveConfig, AdaptiveStepper
from finetune.steppers.dba.subsets import random_subsets
from finetune.steppers.edba.batch_size import size_by_variation
from finetune.steppers.edba.last_layer import Seen, logits_after
from finetune.steppers.edba.margin import margin_loss
from finetune.steppers.epochs import ALL_LAYERS
from pretrain.backbone.modes import evaluating


class EdbaConfig(AdaptiveConfig):
    """Candidates, and how they are told apart."""

    candidates: int = Field(16, ge=1, description="subsets that are drawn for a step")
    margin: float = Field(1.0, gt=0, description="by which the right answer is to be above others, in log odds")
    look_ahead: float = Field(1.0, gt=0, description="step of the last layer by which a subset is tried, in its rates")
    tolerance: float = Field(0.05, ge=0, lt=1, description="relative change of the margin loss that counts for nothing")


@register_stepper("edba")
class EdbaStepper(AdaptiveStepper):
    """Simionescu and Stoica, Efficient dynamic batch adaptation, AAAI-23 student abstract, around any torch optimizer.

    The abstract says: gradients by sample of the last layer only, random candidate subsets, the one that minimises a
    margin-based loss is learned from, and the batch is small while that loss is high and larger when it is low. Margin,
    candidates and the rule of sizes are not published; this is our reading. With weights ``W`` of the last layer,
    their learning rate ``r``, gradients ``g_i`` of the loss of case ``i`` with respect to ``W``, the batch ``B``, and
    ``M`` the mean of :func:`~finetune.steppers.edba.margin.margin_loss`,

    ``S* = argmin_S M(B; W - look_ahead r 1/|S| sum_{i in S} g_i)``

    over ``candidates`` random subsets ``S`` of its strides with ``min_batch`` to ``max_batch`` cases. All layers step
    along the mean loss over ``S*``. Gradients and margins are those of the head without dropout on the features of the
    step, so that neither draws anything and the backbone is run once.

    With ``v_e`` the median over the steps of epoch ``e`` of the margin loss of ``S*``, and ``t`` the ``tolerance``,

    ``B_{e+1} = B_e + delta`` if ``v_e <= (1 - t) v_{e-1}``, ``B_e - delta`` if ``v_e > (1 + t) v_{e-1}``, else ``B_e``,

    within the bounds; the second epoch has the size of the first. A loss that stays 0 makes it grow.

    Raises:
        ConfigError: the target has numbers, of which no answer is right; mixtures are asked for, which have two.
    """

    class Config(EdbaConfig):
        """As of :class:`EdbaConfig`."""

    @classmethod
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """Mixtures have no margin."""
        super().check(config, batch_size, mixup)
        if mixup:
            raise ConfigError("stepper edba: a mixture has two right answers and so no margin; leave mixup at 0")

    def begin(self) -> None:
        """Nothing is known of the margins."""
        super().begin()
        target = self.objective.target
        if not target.classifies:
            raise ConfigError(f"stepper edba: a {target.task.name} target has no margin, classes and labels have")
        self._margins: list[float] = []
        self._before: float | None = None

    def next_epoch(self, selected: list[int]) -> int:
        """By the change of the margin loss."""
        del selected
        now, sizes = median(self._margins), self.sizes
        size = size_by_variation(
            self.next_size(), self._before, now, self.config.tolerance, sizes.delta, sizes.least, sizes.most
        )
        self.log("margin_loss", now)
        self._before, self._margins = now, []
        return size

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """Add the gradient of the mean loss over the best subset; returns the mean loss of the batch.

        Raises:
            TrainingError: loss or gradients are not finite.
        """
        at_once = self.learner.at_once
        parts = [batch[start : start + at_once] for start in range(0, len(batch), at_once)]
        device = next(self.learner.module.parameters()).device
        before = random_state(device)
        seen, losses = Seen(), []
        with seen.by(self.learner.readout), torch.set_grad_enabled(len(parts) == 1):
            for part in parts:
                losses.append(self._checked(self.losses(part, number, share), part, number))
        mask_B = self._chosen(batch, parts, seen.features, number)
        weight_B = torch.from_numpy(mask_B / mask_B.sum()).to(losses[0])
        if len(parts) == 1:
            (losses[0].mean() if mask_B.all() else (losses[0] * weight_B).sum()).backward()
        elif mask_B.all():
            return_to(before, device)
            super().descend_along(batch, number, share)
        else:  # its graph was not kept: memory has room for one part at a time
            return_to(before, device)
            for start, part in zip(range(0, len(batch), at_once), parts, strict=True):
                (self.losses(part, number, share) * weight_B[start : start + at_once]).sum().backward()
        self.chose(batch, number, {ALL_LAYERS: mask_B})
        return float(torch.cat([loss_B.detach() for loss_B in losses]).mean())

    def _checked(self, loss_B: Tensor, part: np.ndarray, number: int) -> Tensor:
        try:
            check_unreduced(loss_B, len(part))
        except TrainingError as error:
            raise TrainingError(f"fine-tuning: {error}, at step {number}; try a smaller learning rate") from None
        return loss_B

    def _chosen(
        self, batch: np.ndarray, parts: list[np.ndarray], features: list[CaseFeatures], number: int
    ) -> np.ndarray:
        """Which cases of the batch the best candidate has, bool ``(B,)``."""
        group_B = self.groups_of(batch)
        size_K = np.bincount(group_B)
        masks_MK = random_subsets(self.config.candidates, size_K, self.sizes.least, self.sizes.most, self.choices)
        readout = self.learner.readout
        layer, last = self._last_layer(readout, parts, features, group_B)
        rate = next(
            group["lr"] for group in self.optimizer.param_groups if any(last.weight is each for each in group["params"])
        )
        names = {id(parameter): name for name, parameter in readout.named_parameters()}
        values = self.objective.values[torch.from_numpy(batch)]
        found = []
        for mask_K in masks_MK:
            weighted = layer.weighted(torch.from_numpy(mask_K / size_K[mask_K].sum()).to(last.weight.device))
            steps = {names[id(parameter)]: gradient for parameter, gradient in weighted.items()}
            logits_BK = logits_after(readout, features, steps, self.config.look_ahead * rate)
            loss_B = margin_loss(self.objective.target, logits_BK, values.to(logits_BK.device), self.config.margin)
            found.append(float(loss_B.mean()))
        if not np.isfinite(found).all():
            raise TrainingError(
                f"fine-tuning: gradients of the last layer are not finite at step {number}; try a smaller learning rate"
            )
        best = int(np.argmin(found))
        self._margins.append(found[best])
        mask_B: np.ndarray = masks_MK[best][group_B]
        return mask_B

    def _last_layer(
        self, readout: Any, parts: list[np.ndarray], features: list[CaseFeatures], group_B: np.ndarray
    ) -> tuple[LayerGradients, nn.Linear]:
        """The gradients of the last layer, summed over the cases of each stride."""
        last = readout.head.last_layer
        if last is None or not last.weight.requires_grad:
            raise ConfigError(
                f"stepper edba chooses by the gradients of the last linear layer, and none of head {readout.head.name} "
                "moves"
            )
        tape = Tape(readout, int(group_B[-1]) + 1, only=last.parameters())
        start = 0
        with evaluating(readout):
            for part, given in zip(parts, features, strict=True):
                with tape.recording(group_B[start : start + len(part)]):
                    tape.backward(readout.losses(given, self.objective, part))
                start += len(part)
        (layer,) = tape.layers()
        return layer, last
