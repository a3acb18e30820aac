"""What a corruption is: an acquisition-like change of images in five severities, and where they are found by name."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar, TypeVar

from torch import Tensor

from data_shards.support.errors import ConfigError, nearest
from data_shards.support.plugins import load_plugins

SEVERITIES = (1, 2, 3, 4, 5)
PLUGINS = "medformer.corruptions"
"""Group of the entry points by which other distributions add corruptions."""


class Corruption(abc.ABC):
    """A change of images such as another scanner, site or protocol makes it.

    What is drawn for an image, such as its noise or the place of a stripe, is the same at every severity: only the
    amount grows.

    Attributes:
        name: as registered.
        words: what it is like, for people.
        unit: what the amounts are, in words.
        amounts: of severities 1 to 5, from little to much.
    """

    name: str
    words: ClassVar[str]
    unit: ClassVar[str]
    amounts: ClassVar[tuple[float, float, float, float, float]]

    def __call__(self, images: Tensor, keys_B: Tensor, severity: int) -> Tensor:
        """The images at a severity, in [0, 1].

        Args:
            images: planes ``B,C,H,W`` or volumes ``B,C,D,H,W``, float32 in [0, 1]; they are left as they are.
            keys_B: fix what is drawn for each image, see :mod:`pretrain.views.random`.
            severity: 1 to 5.

        Raises:
            ConfigError: another severity.
        """
        if severity not in SEVERITIES:
            raise ConfigError(f"severity is one of {', '.join(map(str, SEVERITIES))}, found {severity!r}")
        return self.changed(images.clone(), keys_B, self.amounts[severity - 1]).clamp_(0, 1)

    @abc.abstractmethod
    def changed(self, images: Tensor, keys_B: Tensor, amount: float) -> Tensor:
        """The changed images; those that are given may be overwritten, and values may leave [0, 1]."""


CorruptionClass = TypeVar("CorruptionClass", bound=type[Corruption])
_corruptions: dict[str, type[Corruption]] = {}


def register_corruption(name: str) -> Callable[[CorruptionClass], CorruptionClass]:
    """Class decorator: makes a corruption known by ``name``."""

    def add(corruption: CorruptionClass) -> CorruptionClass:
        corruption.name = name
        _corruptions[name] = corruption
        return corruption

    return add


def corruption_names() -> list[str]:
    """The names of all corruptions."""
    return sorted(_corruptions)


def corruption_named(name: str) -> Corruption:
    """The corruption called ``name``; those of other distributions (:data:`PLUGINS`) are asked where it is unknown.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in _corruptions:
        load_plugins(PLUGINS)
    if name not in _corruptions:
        raise ConfigError(f"unknown corruption {name!r}{nearest(name, _corruptions)}")
    return _corruptions[name]()
