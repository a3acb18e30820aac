"""What a selection is, and where selections are found by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from data_shards.support.documents import Document, parse
from data_shards.support.errors import ConfigError, nearest


@dataclass(frozen=True)
class Strides:
    """The gradients of one layer by stride: all that rules of norms and variances need of them.

    Attributes:
        gram_KK: inner products of the sums over the cases of each stride, float64.
        size_K: cases of each stride.
        least: fewest cases that may be chosen.
        most: most cases that may be chosen.
    """

    gram_KK: np.ndarray
    size_K: np.ndarray
    least: int
    most: int

    def allowed(self, masks_MK: np.ndarray) -> np.ndarray:
        """Whether each subset has as many cases as may be chosen, ``(M,)``."""
        cases_M = masks_MK @ self.size_K
        fits: np.ndarray = (cases_M >= self.least) & (cases_M <= self.most)
        return fits

    def squared_mean(self, masks_MK: np.ndarray) -> np.ndarray:
        """The squared norm of the mean gradient over the cases of each subset, ``(M,)``."""
        masks = masks_MK.astype(np.float64)
        squares: np.ndarray = np.einsum("mk,kl,ml->m", masks, self.gram_KK, masks, optimize=True)
        return squares / (masks @ self.size_K) ** 2


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
        """Whether each stride is chosen, bool ``(K,)``; at least one is."""


SelectionClass = TypeVar("SelectionClass", bound=type[Selection])
_selections: dict[str, type[Selection]] = {}


def register_selection(name: str) -> Callable[[SelectionClass], SelectionClass]:
    """Class decorator: makes a selection known by ``name``."""

    def add(selection: SelectionClass) -> SelectionClass:
        selection.name = name
        _selections[name] = selection
        return selection

    return add


def selection_names() -> list[str]:
    """The names of all selections."""
    return sorted(_selections)


def selection_named(name: str) -> type[Selection]:
    """The selection called ``name``.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in _selections:
        raise ConfigError(f"unknown selection {name!r}{nearest(name, _selections)}")
    return _selections[name]


def selection_config(name: str, options: Mapping[str, Any] | None) -> Any:
    """The options of a selection, checked.

    Raises:
        ConfigError: there is no such selection or option; the nearest name is given.
    """
    return parse(selection_named(name).Config, dict(options or {}), f"selection {name}")
