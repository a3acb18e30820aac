"""Steppers that learn from a part of each batch, or change its size: epochs, and what is told of them."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np

from finetune.steppers.plain import PlainStepper

ALL_LAYERS = "all layers"
"""Under this name it is told what was chosen where every layer learns from the same cases."""


class EpochStepper(PlainStepper):
    """Plain draws in batches whose size may change from epoch to epoch; steps along all or a part of each batch.

    The cases are those that were given, drawn as the plain stepper draws them: a change of the batch size never draws
    others. An epoch ends with the batch in which as many cases were drawn as are given.
    """

    def begin(self) -> None:
        """Nothing was drawn."""
        self._epochs = [self.first_size()]
        self._drawn = 0
        self._seen: set[int] = set()
        self._used: set[int] = set()
        self._selected: list[int] = []
        self._by_layer: dict[str, list[int]] = {}
        self._curves: dict[str, list[float]] = {}
        super().begin()
        self.choices = np.random.default_rng([self.drawing.seed, 3])

    def first_size(self) -> int:
        """Cases of the batches of the first epoch."""
        return min(self.drawing.batch_size, len(self.rows))

    def batch_size(self, epoch: int) -> int:
        """Of an epoch that has begun; of a later one, that of the last that has."""
        return self._epochs[min(epoch, len(self._epochs) - 1)]

    def next_size(self) -> int:
        """Cases of the next batch."""
        return self._epochs[-1]

    def next_epoch(self, selected: list[int]) -> int:
        """The batch size of the epoch that begins; here it stays.

        Args:
            selected: cases that were chosen in each of the choices of the epoch that has ended.
        """
        del selected
        return self.next_size()

    def chose(self, batch: np.ndarray, number: int, chosen: dict[str, np.ndarray]) -> None:
        """Take note of a step, and end the epoch where it is over.

        Args:
            batch: the cases that were drawn.
            number: of the step.
            chosen: for each layer which of them it learns from.
        """
        self._seen.update(batch.tolist())
        for layer, mask_B in chosen.items():
            self._used.update(batch[mask_B].tolist())
            self._selected.append(int(mask_B.sum()))
            self._by_layer.setdefault(layer, []).append(int(mask_B.sum()))
        self._drawn += len(batch)
        if self._drawn < len(self.rows):
            return
        self._drawn -= len(self.rows)
        self.log("steps", number + 1)
        self.log("batch_size", self.next_size())
        self.log("selected", median(self._selected))
        self.log("distinct", len(self._seen))
        self._epochs.append(self.next_epoch(self._selected))
        self._selected = []

    def log(self, name: str, value: float) -> None:
        """Take down what a curve is at the end of an epoch."""
        self._curves.setdefault(name, []).append(value)

    @property
    def report(self) -> dict[str, Any]:
        """How many different cases were drawn and chosen, sizes by epoch, and the mean number chosen by layer."""
        return {
            "distinct_seen": len(self._seen),
            "distinct_chosen": len(self._used),
            "batches": {name: list(values) for name, values in self._curves.items()},
            "chosen_by_layer": {layer: float(np.mean(sizes)) for layer, sizes in self._by_layer.items()},
        }
