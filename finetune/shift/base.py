"""What a corruption is: an acquisition-like change of images in five severities, and where they are found by name."""

from __future__ import annotations

import abc
from typing import ClassVar

from torch import Tensor

from data_shards.support.errors import ConfigError
from data_shards.support.registry import Registry

SEVERITIES = (1, 2, 3, 4, 5)


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

    name: ClassVar[str]
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


CORRUPTIONS: Registry[Corruption] = Registry("corruption", plugins="medformer.corruptions")
register_corruption = CORRUPTIONS.register
