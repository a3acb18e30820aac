"""What sizes a network takes and what its features look like, found by running it on tensors without numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone.modes import evaluating


@dataclass(frozen=True)
class Layout:
    """How a network reads images of one size.

    Attributes:
        read: voxels along each axis as it reads them; others are resized to it.
        grid: cells along each axis; all ones where its features have no place in the image.
        channels: the axis of the channels of its feature map; None where it gives a sequence.
        prefix: so many entries of a sequence are not of cells; -1 where it has no cells.
        pools: whether the pooled features are as wide as the tokens, so that they are the embedding.
    """

    read: tuple[int, ...]
    grid: tuple[int, ...]
    channels: int | None
    prefix: int = 0
    pools: bool = True

    @property
    def cells(self) -> int:
        """How many tokens there are."""
        return math.prod(self.grid)

    def tokens(self, features: Tensor) -> Tensor | None:
        """The tokens ``B, T, D`` of what ``forward_features`` gives, in row-major order of the grid; None without."""
        if self.channels is not None:
            return features.movedim(self.channels, -1).flatten(1, -2)
        return None if self.prefix < 0 else features[:, self.prefix :]

    def features(self, tokens_BTD: Tensor, features: Tensor) -> Tensor:
        """What ``forward_features`` gave, with these in the place of its tokens; views where memory allows them."""
        if self.channels is not None:
            return tokens_BTD.unflatten(1, self.grid).movedim(-1, self.channels)
        return torch.cat([features[:, : self.prefix], tokens_BTD], dim=1) if self.prefix else tokens_BTD


class Shapes:
    """Answers for one network, each worked out once.

    Args:
        called: the network, for messages.
        twin: the same network on the ``meta`` device. It is not part of any module: it has no weights.
        nominal: size it was made for.
        in_chans: channels it reads.
        width: channels of its features.
    """

    def __init__(self, called: str, twin: nn.Module, nominal: tuple[int, ...], in_chans: int, width: int) -> None:
        self.called, self.nominal = called, nominal
        self._twin: Any = twin
        self._in_chans, self._width = in_chans, width
        self._known: dict[tuple[int, ...], Layout] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Shapes:
        return self  # what it knows is true of a copy of the network, too

    @property
    def stride(self) -> int:
        """Pixels per token along the first axis, at the nominal size."""
        layout = self.layout(self.nominal)
        return -(-layout.read[0] // layout.grid[0])

    def layout(self, size: Sequence[int]) -> Layout:
        """How the network reads images of so many voxels along each axis.

        As they are where it takes them; else with each side lengthened to a multiple of its stride, as convolutional
        networks without padding need it of small images; else at its nominal size, on which some insist.

        Raises:
            ConfigError: it takes none of these.
        """
        wanted = tuple(size)
        if wanted not in self._known:
            found, reason = self._try(wanted)
            if found is None and wanted != self.nominal:
                stride = self.stride
                for other in (tuple(-(-side // stride) * stride for side in wanted), self.nominal):
                    found = found or self._try(other)[0]
            if found is None:
                raise ConfigError(f"{self.called} does not read images of {wanted} voxels: {reason}")
            self._known[wanted] = found
        return self._known[wanted]

    def _try(self, size: tuple[int, ...]) -> tuple[Layout | None, str]:
        """The layout when the network takes this size itself, and why it does not."""
        try:
            with evaluating(self._twin), torch.no_grad():
                features = self._twin.forward_features(torch.empty(1, self._in_chans, *size, device="meta"))
                pooled = self._twin.forward_head(features, pre_logits=True)
        except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError, LookupError) as error:
            return None, " ".join(str(error).split())[:200]
        if not isinstance(pooled, Tensor) or pooled.ndim != 2:
            return None, "its pooled features are not one vector per image"
        layout = replace(self._seen(features, size), pools=pooled.shape[1] == self._width)
        if not layout.pools and layout.prefix < 0:
            return None, f"its features are {self._width} wide, {pooled.shape[1]} when pooled, and stand on no grid"
        return (layout, "") if layout.cells else (None, "nothing is left of them in its last feature map")

    def _seen(self, features: Any, size: tuple[int, ...]) -> Layout:
        shape = tuple(features.shape) if isinstance(features, Tensor) else ()
        axes = len(size)
        if len(shape) == axes + 2 and self._width in (shape[1], shape[-1]):
            last = shape[1] != self._width or getattr(self._twin, "output_fmt", "NCHW") == "NHWC"
            channels = axes + 1 if last else 1
            return Layout(size, shape[1:-1] if last else shape[2:], channels)
        if len(shape) == 3 and shape[-1] == self._width:
            prefix = int(getattr(self._twin, "num_prefix_tokens", 0))
            grid = self._grid(shape[1] - prefix, size)
            if grid is not None:
                return Layout(size, grid, None, prefix)
        return Layout(size, (1,) * axes, None, -1)

    def _grid(self, tokens: int, size: tuple[int, ...]) -> tuple[int, ...] | None:
        """So many tokens along each axis; None where no such grid has the proportions of the image."""
        embed: Any = getattr(self._twin, "patch_embed", None)
        if hasattr(embed, "dynamic_feat_size"):
            grid = tuple(embed.dynamic_feat_size(size))
        else:
            side = (math.prod(size) / max(tokens, 1)) ** (1 / len(size))
            grid = tuple(round(length / side) for length in size)
        return grid if math.prod(grid) == tokens else None
