"""The generator of BrainFuse: the image at ``t`` between two, by displacements both ways, a mask and a small residual.

Coarse to fine, each level looks at both images as they are moved so far and corrects the displacements (as RIFE does,
Huang et al., ECCV 2022; the network is our own). Three things hold by construction, whatever the weights: the image at
0 is the first, that at 1 is the second, and ``G(a, b, t) = G(b, a, 1 - t)``. As it is drawn it gives the weighted mean
``(1 - t) a + t b``, so it begins where RawBrainFuse ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.documents import Document
from pretrain.brainfuse.warp import warp


class GeneratorConfig(Document):
    """Sizes of the generator."""

    axes: Literal[2, 3] = Field(2, description="2 for slices, 3 for volumes")
    channels: int = Field(1, ge=1, description="of an image")
    context: int = Field(0, ge=0, description="slices seen on either side of each of two slices, as channels (2.5D)")
    width: int = Field(32, ge=4, description="channels of the convolutions")
    depth: int = Field(3, ge=1, description="convolutions with a shortcut per level")
    scales: tuple[int, ...] = Field((4, 2, 1), min_length=1, description="how much coarser the image is at each level")


@dataclass(frozen=True)
class Between:
    """What the generator makes of two images.

    Attributes:
        image: at ``t``, ``B,C,*size``.
        moved_a, moved_b: each image brought there, by the displacements of the last level.
        flow_a, flow_b: these, in pixels, ``B,A,*size``.
        weight_a: the share of the first, ``B,1,*size``.
        levels: ``moved_a``, ``moved_b`` and their weighted mean at each level, at full resolution.
    """

    image: Tensor
    moved_a: Tensor
    moved_b: Tensor
    flow_a: Tensor
    flow_b: Tensor
    weight_a: Tensor
    levels: tuple[tuple[Tensor, Tensor, Tensor], ...]


class Generator(nn.Module):
    """``G(a, b, t)``.

    Args:
        config: sizes.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        seen = config.channels * (2 * config.context + 1)
        # Both images as they are and as they are moved, both displacements, both scores, and the time.
        inputs = 2 * (seen + config.channels + config.axes + 1) + 1
        self.levels = nn.ModuleList(
            _Block(config.axes, inputs, config.axes + 1, config.width, config.depth) for _ in config.scales
        )
        self.residual = _Block(config.axes, 2 * (seen + config.channels) + config.channels + 1, config.channels,
                               config.width, config.depth)  # fmt: skip

    def forward(self, a: Tensor, b: Tensor, t: Tensor | float) -> Between:
        """The image at ``t``.

        Args:
            a: images, ``B,C,*size``; with ``context`` the slices around each one after the other along the channels.
            b: others of the same shape.
            t: where between them, from 0 to 1; one for all, or ``(B,)``.

        Raises:
            ValueError: the shapes do not fit.
        """
        config = self.config
        seen = config.channels * (2 * config.context + 1)
        if a.shape != b.shape or a.ndim != 2 + config.axes or a.shape[1] != seen:
            raise ValueError(
                f"images of {tuple(a.shape)} and {tuple(b.shape)}: expected two of one shape with {seen} channels and "
                f"{config.axes} axes"
            )
        size = tuple(a.shape[2:])
        t_B = torch.as_tensor(t, dtype=a.dtype, device=a.device).expand(len(a))
        # Both streams at once: the second sees the images the other way round, and its time runs backwards.
        near, far = torch.cat([a, b]), torch.cat([b, a])
        time = torch.cat([t_B, 1 - t_B]).view(-1, 1, *[1] * config.axes)
        plain = slice(config.context * config.channels, (config.context + 1) * config.channels)
        flow = a.new_zeros(len(near), config.axes, *size)
        score = a.new_zeros(len(near), 1, *size)
        levels = []
        for block, scale in zip(self.levels, config.scales, strict=True):
            moved = warp(near[:, plain], flow * time)
            given = torch.cat([near, far, moved, _other(moved), flow, _other(flow), score, _other(score)], dim=1)
            change = block(given, time, scale)
            flow = flow + change[:, : config.axes]
            score = score + change[:, config.axes :]
            levels.append(self._merged(near[:, plain], flow, score, time))
        moved, weight, mean = levels[-1]
        given = torch.cat([near, far, moved, _other(moved), torch.cat([mean, mean])], dim=1)
        change = self.residual(given, time, 1)
        half = len(a)
        room = 4 * t_B * (1 - t_B)
        image = mean + (change[:half] + change[half:]) / 2 * room.view(-1, 1, *[1] * config.axes)
        flow = flow * time
        return Between(
            image, moved[:half], moved[half:], flow[:half], flow[half:], weight,
            tuple((each[:half], each[half:], merged) for each, _, merged in levels),
        )  # fmt: skip

    def _merged(self, near: Tensor, flow: Tensor, score: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both images moved, the share of the first, and the mean."""
        moved = warp(near, flow * time)
        half = len(near) // 2
        t = time[:half]
        # The share of the first is 1 - t, then what the scores make of it: at 0 and 1 they change nothing.
        odds = (score[:half] - score[half:]).exp()
        weight = (1 - t) * odds / ((1 - t) * odds + t)
        return moved, weight, weight * moved[:half] + (1 - weight) * moved[half:]


def _other(values: Tensor) -> Tensor:
    """Those of the other stream."""
    first, second = values.chunk(2)
    return torch.cat([second, first])


class _Block(nn.Module):
    """Convolutions at a coarser scale; begins as zero."""

    def __init__(self, axes: int, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.first = conv(inputs, width, 3, padding=1)
        self.convs = nn.ModuleList(conv(width, width, 3, padding=1) for _ in range(2 * depth))
        self.last = conv(width, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)
        self.axes = axes

    def forward(self, given: Tensor, time: Tensor, scale: int) -> Tensor:
        size = tuple(given.shape[2:])
        values = torch.cat([given, time.expand(-1, 1, *size)], dim=1)
        if scale > 1:
            values = F.interpolate(values, size=[max(1, length // scale) for length in size], mode="area")
        values = F.leaky_relu(self.first(values), 0.1)
        for one, two in zip(self.convs[::2], self.convs[1::2], strict=True):
            values = values + two(F.leaky_relu(one(F.leaky_relu(values, 0.1)), 0.1))
        change: Tensor = self.last(F.leaky_relu(values, 0.1))
        if scale == 1:
            return change
        # Displacements are counted in pixels of the full image at every level.
        mode = "bilinear" if self.axes == 2 else "trilinear"
        wider: Tensor = F.interpolate(change, size=size, mode=mode, align_corners=False)
        return wider
