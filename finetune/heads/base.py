"""What a head is, and where heads are found by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

from torch import Tensor, nn

from data_shards.support.errors import ConfigError, nearest
from pretrain.backbone import Features


class Head(nn.Module):
    """From features to logits.

    Args of every head: ``dim``, channels of the features; ``outputs``, number of logits.

    Attributes:
        reads: ``embedding`` when :meth:`forward` takes ``(B, D)``, ``tokens`` when it takes ``(B, T, D)``.
    """

    reads: ClassVar[Literal["embedding", "tokens"]]

    def select(self, features: Features) -> Tensor:
        """The part of the backbone's result that :meth:`forward` takes."""
        if self.reads == "embedding":
            return features.embedding_BD
        assert features.tokens_BTD is not None, "a head over tokens needs dense features"
        return features.tokens_BTD


HeadClass = TypeVar("HeadClass", bound=type[Head])
_heads: dict[str, Callable[..., Head]] = {}


def register_head(name: str) -> Callable[[HeadClass], HeadClass]:
    """Class decorator: makes a head known by ``name``."""

    def add(head: HeadClass) -> HeadClass:
        _heads[name] = head
        return head

    return add


def head_names() -> list[str]:
    """The names of all heads."""
    return sorted(_heads)


def known_head(name: str) -> str:
    """``name`` itself when a head is called so.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in _heads:
        raise ConfigError(f"unknown head {name!r}{nearest(name, _heads)}")
    return name


def create_head(name: str, dim: int, outputs: int) -> Head:
    """A new head.

    Args:
        name: as registered.
        dim: channels of the features.
        outputs: number of logits.

    Raises:
        ConfigError: there is no such head; the nearest name is given.
    """
    return _heads[known_head(name)](dim, outputs)
