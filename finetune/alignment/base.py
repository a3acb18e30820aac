"""What an alignment is: a distance between the features of two sites, and where alignments are found by name."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from data_shards.support.registry import Registry


class AlignmentConfig(Document):
    """What every alignment has.

    Attributes:
        weight: of what it adds beside the loss of the labels; 0 is the fit without it, bit for bit.
    """

    weight: float = Field(1.0, ge=0, description="of what it adds beside the loss of the labels; 0 is no alignment")


class Alignment(nn.Module, abc.ABC):
    """Makes the features of the source site, which has labels, and of the target site alike.

    Its own weights, if it has any, are trained beside the network and thrown away after the fit.

    Args:
        dim: numbers per case.
        config: its options.

    Attributes:
        Config: the options.
        name: as registered.
        closed_form: whether it serves a frozen network too, see :meth:`transported`.
    """

    class Config(AlignmentConfig):
        """No further options."""

    name: ClassVar[str]
    closed_form: ClassVar[bool] = False

    def __init__(self, dim: int, config: Any) -> None:
        super().__init__()
        self.dim, self.config = dim, config

    @abc.abstractmethod
    def forward(self, source_BD: Tensor, target_MD: Tensor, progress: float) -> Tensor:
        """What is added to the loss, a scalar, by which weights of the network and its own learn.

        Args:
            source_BD: features of a batch of the source site, two at least.
            target_MD: of the target site, two at least.
            progress: share of the training that is done, from 0 to 1.
        """

    def transported(self, source_ND: np.ndarray, target_MD: np.ndarray) -> np.ndarray:
        """Features of the source site as those of the target site would be, ``(N, D)`` float64; the frozen form.

        Args:
            source_ND: of all cases of the source site.
            target_MD: of all cases of the target site.

        Raises:
            ConfigError: it has no such form.
        """
        raise ConfigError(f"alignment {self.name} has no closed form")


ALIGNMENTS: Registry[Alignment] = Registry("alignment", plugins="medformer.alignments")
register_alignment = ALIGNMENTS.register


def alignment_config(given: Mapping[str, Any]) -> tuple[type[Alignment], Any]:
    """The alignment that a document names, and its options, checked.

    Args:
        given: ``name``, and options of its ``Config``.

    Raises:
        ConfigError: there is no name, no such alignment, or an option is unknown or out of its bounds.
    """
    options = dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"alignment: expected a name, one of {', '.join(ALIGNMENTS.names())}; found {name!r}")
    return ALIGNMENTS.named(name), ALIGNMENTS.config(name, options)


def create_alignment(given: Mapping[str, Any], dim: int) -> Alignment:
    """A new alignment of features of so many numbers.

    Raises:
        ConfigError: as of :func:`alignment_config`.
    """
    found, config = alignment_config(given)
    return found(dim, config)
