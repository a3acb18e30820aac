"""DBA: each layer steps along the gradient of the samples that it chose of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from finetune.steppers.base import register_stepper
from finetune.steppers.dba.adaptive import AdaptiveConfig, AdaptiveStepper
from finetune.steppers.dba.batch_size import next_batch_size
from finetune.steppers.dba.selection import SELECTIONS, Strides
from finetune.steppers.epochs import ALL_LAYERS
from finetune.steppers.recorder import Recorder, inner_products, learn_from


class DbaConfig(AdaptiveConfig):
    """Which samples are chosen."""

    selection: str = Field("gradient_norm", description="gradient_norm, variance_norm; random and all to compare with")
    selection_options: dict[str, Any] = Field(default_factory=dict, description="of the selection")

    @model_validator(mode="after")
    def _selection_is_known(self) -> DbaConfig:
        SELECTIONS.config(self.selection, self.selection_options)
        return self


@register_stepper("dba")
class DbaStepper(AdaptiveStepper):
    """Simionescu, Stoica and Herscovici, Dynamic batch adaptation, arXiv 2208.00815, around any optimizer of torch.

    For each layer, which is the weights of one module: the batch is split into strides of ``stride`` cases each, a
    selection chooses strides by their gradients in this layer, and the gradient of the layer becomes the mean over the
    cases in them. Samples, and so the direction of the step, may differ from layer to layer. After each epoch
    :func:`~finetune.steppers.dba.batch_size.next_batch_size` says the size of the batches.

    What the paper leaves open and is our reading: strides are consecutive cases of the batch; ``min_batch`` and
    ``max_batch`` bound both the batch and what is chosen of it; ``delta`` is the stride; the formulae of the
    selections, which their files state.

    A step takes one forward and one backward pass. A layer that chooses everything has its ordinary gradient, so that
    where all do the step is that of the plain stepper, bit for bit. In a network that computes otherwise while it is
    recorded (:attr:`~finetune.per_sample.tape.Tape.transparent`), the pass is then taken again, with the same draws.
    """

    class Config(DbaConfig):
        """As of :class:`DbaConfig`."""

    def begin(self) -> None:
        """The selection has options of its own."""
        super().begin()
        options = SELECTIONS.config(self.config.selection, self.config.selection_options)
        self._selection = SELECTIONS.named(self.config.selection)(options)
        self._recorder = Recorder(self)

    def next_epoch(self, selected: list[int]) -> int:
        """By the median of the selected sizes."""
        sizes = self.sizes
        return next_batch_size(self.next_size(), selected, sizes.delta, sizes.least, sizes.most)

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """Give each layer the gradient of what it chose; returns the mean loss of the batch.

        Raises:
            ConfigError: a layer has no gradients by sample, or the loss is reduced already.
            TrainingError: loss or gradients are not finite.
        """
        if self._selection.takes_all or self.sizes.least >= len(batch):
            loss = super().descend_along(batch, number, share)
            self.chose(batch, number, {ALL_LAYERS: np.ones(len(batch), dtype=bool)})
            return loss
        group_B = self.groups_of(batch)
        size_K = np.bincount(group_B)
        loss, layers = self._recorder.record(batch, group_B, number, share)
        strides = Strides(inner_products(layers, number), size_K, self.sizes.least, self.sizes.most)
        masks_LK = self._selection.choose(strides, self.choices)
        if masks_LK.all():
            loss = self._recorder.whole(batch, number, share, loss)
        for layer, mask_K in zip(layers, masks_LK, strict=True):
            if masks_LK.all() or (self._recorder.attached and mask_K.all()):
                continue
            # Gradients of strides are parts of that of the mean over the batch.
            learn_from(layer, mask_K * (len(batch) / size_K[mask_K].sum()))
        names = [layer.name for layer in layers]
        self.chose(batch, number, {name: mask_K[group_B] for name, mask_K in zip(names, masks_LK, strict=True)})
        return loss
