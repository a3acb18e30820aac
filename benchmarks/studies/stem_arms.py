"""Stems that are compared: those of the product, and others that were tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.studies.nominal import SIMCLR
from benchmarks.studies.quick import configured
from pretrain.backbone import Medformer
from pretrain.backbone.stems import ChannelNorm, InflatedConv, continued
from pretrain.module import create_backbone


class Depthwise(InflatedConv):
    """A kernel of three for each channel by itself; planes and volumes share it."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(1, channels, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``B,C`` and every axis ``ceil(size / stride)`` long."""
        kernel, axes = self.kernel(1, x.ndim - 2), x.ndim - 2
        convolution = F.conv2d if axes == 2 else F.conv3d
        stride = self.stride[0]
        return convolution(self.continued(x), kernel, self.bias, stride, self.margins(axes), groups=len(kernel))


class Separable(nn.Module):
    """Patches of half the stride, a depthwise convolution that overlaps and halves, a linear map."""

    mapped = True

    def __init__(self, in_chans: int, dim: int, stride: int) -> None:
        super().__init__()
        self.stride, side, width = stride, stride // 2, dim // 2
        self.offset = (side - 1) / 2
        self.first = InflatedConv(in_chans, width, side, side)
        self.depthwise = Depthwise(width, 2)
        self.norms = nn.ModuleList([ChannelNorm(width), ChannelNorm(width)])
        self.proj = nn.Linear(width, dim)

    def forward(self, images: Tensor) -> Tensor:
        """``B, dim`` and the grid."""
        features = self.depthwise(F.gelu(self.norms[0](self.first(continued(images, self.stride)))))
        found: Tensor = self.proj(self.norms[1](features).movedim(1, -1)).movedim(-1, 1)
        return found


def _overlapping(backbone: Medformer) -> None:
    stem = backbone.adapter.stem
    width, dim = stem.joined.in_channels, stem.joined.out_channels
    stem.joined = InflatedConv(width, dim, 3, 2)
    stem.offset = (stem.stride // 2 - 1) / 2


class Neighbours(nn.Module):
    """The stem of the product, and what a depthwise convolution on the grid of tokens adds (Chu et al., ICLR 2023)."""

    mapped = True

    def __init__(self, stem: nn.Module, dim: int) -> None:
        super().__init__()
        self.stem, self.depthwise = stem, Depthwise(dim)
        self.stride, self.offset = stem.stride, stem.offset

    def forward(self, images: Tensor) -> Tensor:
        """``B, dim`` and the grid."""
        features: Tensor = self.stem(images)
        return features + self.depthwise(features)


@dataclass(frozen=True)
class Arm:
    """A stem.

    Attributes:
        name: in the table.
        kwargs: of the model.
        change: what is done to the network afterwards.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Medformer], None] | None = None


def _separable(backbone: Medformer) -> None:
    backbone.adapter.stem = Separable(backbone.in_chans, backbone.embed_dim, backbone.stride)


def _neighbours(backbone: Medformer) -> None:
    backbone.adapter.stem = Neighbours(backbone.adapter.stem, backbone.embed_dim)


OLD = Arm("conv", {"stem": "conv", "stride": 4})
NEW = Arm("hmlp", {"stem": "hmlp"})
TRIED = (
    Arm("patch", {"stem": "patch"}),
    Arm("separable", {"stem": "hmlp"}, _separable),
    Arm("hmlp + neighbours", {"stem": "hmlp"}, _neighbours),
    Arm("hmlp, joined by a kernel of three", {"stem": "hmlp"}, _overlapping),
)


def fresh(arm: Arm, size: tuple[int, ...], seed: int) -> Medformer:
    """medformer_nano with the stem of an arm."""
    torch.manual_seed(seed)
    model = {"name": "medformer_nano", "kwargs": {"img_size": list(size), **arm.kwargs}}
    backbone = create_backbone(configured({"model": model, "objectives": SIMCLR}).model)
    if arm.change is not None:
        arm.change(backbone)
    return backbone.eval()
