"""Batches of a stepper run so that gradients by case, or by group of cases, can be asked for."""

from __future__ import annotations

import numpy as np
import torch

from data_shards.support.errors import TrainingError
from finetune.per_sample import LayerGradients, Tape
from finetune.random_state import random_state, return_to
from finetune.steppers.plain import PlainStepper


class Recorder:
    """Records batch after batch; one forward and one backward pass each.

    The first recording looks for weights that are used where no rule sees them, and so leaves them out of the graph.
    Later ones keep them there, where the network computes while it is recorded what it computes otherwise
    (:attr:`~finetune.per_sample.tape.Tape.transparent`).

    Args:
        stepper: whose losses they are.

    Attributes:
        attached: whether the last recording left the ordinary gradient of the batch, bit for bit.
    """

    def __init__(self, stepper: PlainStepper) -> None:
        self._stepper, self.attached = stepper, False
        self._tape: Tape | None = None

    def record(
        self, batch: np.ndarray, group_B: np.ndarray, number: int, share: float | None
    ) -> tuple[float, list[LayerGradients]]:
        """Run a batch.

        Args:
            batch: the cases.
            group_B: the group of each of them, ascending from 0.
            number: of the step.
            share: of the mixtures, where there are some.

        Returns:
            The mean loss, and by layer what the cases of each group add to its gradient.

        Raises:
            ConfigError: a layer has no gradients by case, or the loss is reduced already.
            TrainingError: the loss is not finite.
        """
        stepper = self._stepper
        self._device = next(stepper.learner.module.parameters()).device
        self._before = random_state(self._device)
        tape = self._tape_for(int(group_B[-1]) + 1)
        at_once, total = stepper.learner.at_once, 0.0
        for start in range(0, len(batch), at_once):
            part = batch[start : start + at_once]
            with tape.recording(group_B[start : start + len(part)]):
                try:
                    loss_B = tape.backward(stepper.losses(part, number, share), len(part) / len(batch))
                except TrainingError as error:
                    said = f"fine-tuning: {error}, at step {number}; try a smaller learning rate"
                    raise TrainingError(said) from None
            total += float(loss_B.mean() * (len(part) / len(batch)))
            if len(batch) > len(part):
                tape.settle()
        return total, tape.take()

    def whole(self, batch: np.ndarray, number: int, share: float | None, loss: float) -> float:
        """Leave the ordinary gradient of the batch that was recorded last; returns its loss.

        Where the recording has not, the pass is taken again with the same draws.

        Args:
            batch: as recorded.
            number: likewise.
            share: likewise.
            loss: what the recording gave.
        """
        if self.attached:
            return loss
        return_to(self._before, self._device)
        self._stepper.optimizer.zero_grad(set_to_none=True)
        return PlainStepper.descend_along(self._stepper, batch, number, share)

    def _tape_for(self, groups: int) -> Tape:
        """One for so many groups; its rules are looked up once."""
        if self._tape is not None:
            self.attached = self._tape.transparent
        if self._tape is None or self._tape.groups != groups or self._tape.attached != self.attached:
            self._tape = Tape(self._stepper.learner.module, groups, attached=self.attached)
        return self._tape


def inner_products(layers: list[LayerGradients], number: int) -> np.ndarray:
    """Inner products of the gradients of all groups in each layer, float64 ``(L, K, K)``.

    Args:
        layers: of a recording.
        number: of the step, for the message.

    Raises:
        TrainingError: one is not finite; the layer is named.
    """
    grams_LKK: np.ndarray = torch.stack([layer.gram() for layer in layers]).double().cpu().numpy()
    finite_L = np.isfinite(grams_LKK).all(axis=(1, 2))
    if not finite_L.all():
        raise not_finite(layers[int(np.argmin(finite_L))], number)
    return grams_LKK


def not_finite(layer: LayerGradients, number: int) -> TrainingError:
    """The error of a layer whose gradients are not finite at a step."""
    return TrainingError(
        f"fine-tuning: gradients of layer {layer.name} are not finite at step {number}; try a smaller learning rate"
    )


def learn_from(layer: LayerGradients, weight_K: np.ndarray) -> None:
    """Make the gradient of a layer the sum over groups of weight times what they add to it."""
    device = next(iter(layer.found)).device
    for parameter, gradient in layer.weighted(torch.from_numpy(weight_K).to(device)).items():
        parameter.grad = gradient
