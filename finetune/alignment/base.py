"""What an alignment is: a distance between the features of two sites, and where alignments are found by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.documents import Document, parse
from data_shards.support.errors import ConfigError, nearest
from data_shards.support.plugins import load_plugins

PLUGINS = "medformer.alignments"
"""Group of the entry points by which other distributions add alignments."""


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


AlignmentClass = TypeVar("AlignmentClass", bound=type[Alignment])
_alignments: dict[str, type[Alignment]] = {}


def register_alignment(name: str) -> Callable[[AlignmentClass], AlignmentClass]:
    """Class decorator: makes an alignment known by ``name``."""

    def add(alignment: AlignmentClass) -> AlignmentClass:
        alignment.name = name
        _alignments[name] = alignment
        return alignment

    return add


def alignment_names() -> list[str]:
    """The names of all alignments."""
    return sorted(_alignments)


def alignment_named(name: str) -> type[Alignment]:
    """The alignment called ``name``; those of other distributions (:data:`PLUGINS`) are looked for where it is unknown.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in _alignments:
        load_plugins(PLUGINS)
    if name not in _alignments:
        raise ConfigError(f"unknown alignment {name!r}{nearest(name, _alignments)}")
    return _alignments[name]


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
        raise ConfigError(f"alignment: expected a name, one of {', '.join(alignment_names())}; found {name!r}")
    found = alignment_named(name)
    return found, parse(found.Config, options, f"alignment {name}")


def create_alignment(given: Mapping[str, Any], dim: int) -> Alignment:
    """A new alignment of features of so many numbers.

    Raises:
        ConfigError: as of :func:`alignment_config`.
    """
    found, config = alignment_config(given)
    return found(dim, config)
