"""Where every random number of a population comes from: its name, a purpose, and the numbers of subject and image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

_TRAIN, _VAL = 0.7, 0.1


@dataclass(frozen=True)
class Population:
    """Random numbers by name, the same on every machine and in any order.

    Attributes:
        name: another name is another population.
    """

    name: str

    def random(self, purpose: str, *numbers: int) -> np.random.Generator:
        """A generator for one purpose of one subject (and image)."""
        return np.random.Generator(np.random.Philox(int.from_bytes(self._digest(purpose, *numbers), "little")))

    def fraction(self, purpose: str, *numbers: int) -> float:
        """A number from 0 to 1, uniform over the subjects."""
        return int.from_bytes(self._digest(purpose, *numbers)[:6], "little") / (1 << 48)

    def split(self, subject: int) -> str:
        """70 % of subjects train, 10 % val, 20 % test."""
        fraction = self.fraction("split", subject)
        return "train" if fraction < _TRAIN else "val" if fraction < _TRAIN + _VAL else "test"

    def label(self, subject: int, shares: dict[int, float]) -> int:
        """The class of a subject, from the share of each class."""
        limits = np.cumsum(list(shares.values()))
        place = int(np.searchsorted(limits, self.fraction("label", subject), side="right"))
        return list(shares)[min(place, len(limits) - 1)]

    def _digest(self, purpose: str, *numbers: int) -> bytes:
        text = "/".join([self.name, purpose, *map(str, numbers)])
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Variation:
    """Random numbers of a subject whose spread can be scaled: an easy population is the hard one drawn together.

    Draws keep their order and number whatever the spread.

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
