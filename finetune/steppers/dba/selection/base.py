"""What a selection is, and where selections are found by name."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from data_shards.support.documents import Document
from data_shards.support.registry import Registry
from finetune.steppers.dba.subsets import Score, best_subsets


@dataclass(frozen=True)
class Strides:
    """The gradients of all layers by stride: all that rules of norms and variances need of them.

    Attributes:
        gram_LKK: for each layer the inner products of the sums over the cases of each stride, float64.
        size_K: cases of each stride.
        least: fewest cases that may be chosen.
        most: most cases that may be chosen.
    """

    gram_LKK: np.ndarray
    size_K: np.ndarray
    least: int
    most: int

    def best(self, score: Score) -> np.ndarray:
        """The subset with the lowest score in each layer, bool ``(L, K)``."""
        return best_subsets(self.gram_LKK, self.size_K, score, self.least, self.most)


class Selection(abc.ABC):
    """A rule.

    Args:
        config: its options.

    Attributes:
        Config: the options.
        takes_all: whether it takes everything whatever the gradients are, which then are not asked for.
    """

    class Config(Document):
        """No options."""

    name: ClassVar[str]
    takes_all: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def choose(self, strides: Strides, generator: np.random.Generator) -> np.ndarray:
        """Whether each layer chooses each stride, bool ``(L, K)``; at least one."""


SELECTIONS: Registry[Selection] = Registry("selection")
register_selection = SELECTIONS.register
