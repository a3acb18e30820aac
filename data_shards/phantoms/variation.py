"""Random numbers of a subject whose spread can be scaled, so that an easy population is the hard one drawn together."""

from __future__ import annotations

import numpy as np


class Variation:
    """Draws that keep their order and number whatever the spread.

    Args:
        random: where the numbers come from.
        amount: 1 draws from the full range, 0 always the middle of it.
    """

    def __init__(self, random: np.random.Generator, amount: float) -> None:
        self.random = random
        self.amount = amount

    def between(self, low: float, high: float) -> float:
        """A number from the range, uniform."""
        return (low + high) / 2 + self.amount * (high - low) * (self.random.random() - 0.5)

    def around(self, values: tuple[float, ...], spread: float) -> np.ndarray:
        """Each value moved by up to ``spread``, uniform."""
        return np.array(values) + self.amount * spread * (2 * self.random.random(len(values)) - 1)

    def scaled(self, values: tuple[float, ...], spread: float) -> np.ndarray:
        """Each value times a factor from ``1 - spread`` to ``1 + spread``, uniform."""
        return np.array(values) * (1 + self.amount * spread * (2 * self.random.random(len(values)) - 1))
