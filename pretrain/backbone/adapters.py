"""Input adapters: from pixels to the tokens that the latents attend to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from pretrain.backbone.position import FourierPosition, grid_coordinates


class ConvStem(nn.Module):
    """Overlapping convolutions, each stage halving the grid (Xiao et al., NeurIPS 2021: early convolutions).

    The first convolution takes any number of channels: its weights are those of ``in_chans`` canonical channels, and an
    image of another number of channels sees them as if its channels were repeated cyclically and rescaled, so a
    grey image gives what the same image in equal colours gives.

    Args:
        in_chans: canonical number of channels.
        dim: channels of the result.
        stride: pixels per token along each axis, a power of two.

    Raises:
        ValueError: ``stride`` is not a power of two above one.
    """

    def __init__(self, in_chans: int, dim: int, stride: int = 4) -> None:
        super().__init__()
        stages = stride.bit_length() - 1
        if stride != 2**stages or stages < 1:
            raise ValueError(f"stride {stride} of the stem is not a power of two above one")
        widths = [max(dim >> (stages - stage), 16) for stage in range(stages)] + [dim]
        self.stride = stride
        self.in_chans = in_chans
        self.first = nn.Conv2d(in_chans, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [LayerNorm2d(narrow), nn.GELU(), nn.Conv2d(narrow, wide, 3, stride=2, padding=1)]
        self.stages = nn.Sequential(*layers, LayerNorm2d(dim))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Feature map ``B, dim, ceil(H / stride), ceil(W / stride)``."""
        weight = channels_as(self.first.weight, images_BCHW.shape[1])
        return self.stages(F.conv2d(images_BCHW, weight, self.first.bias, padding=1))


def channels_as(weight_OCHW: Tensor, channels: int) -> Tensor:
    """The kernel of a convolution over canonical channels, for images of another number of channels.

    With fewer channels than canonical ones the image counts as repeated cyclically, so the kernels that would meet the
    same channel are summed. With more, each kernel is shared out evenly among the channels that repeat its own, so that
    equal channels give the same response.
    """
    canonical = weight_OCHW.shape[1]
    if channels == canonical:
        return weight_OCHW
    if channels < canonical:
        groups = torch.arange(canonical, device=weight_OCHW.device) % channels
        folded = weight_OCHW.new_zeros(weight_OCHW.shape[0], channels, *weight_OCHW.shape[2:])
        return folded.index_add(1, groups, weight_OCHW)
    tiles = torch.arange(channels, device=weight_OCHW.device) % canonical
    shares = torch.bincount(tiles, minlength=canonical).to(weight_OCHW.dtype)
    return (weight_OCHW / shares[:, None, None])[:, tiles]


class PlanarAdapter(nn.Module):
    """Tokens of a 2D image: convolutional stem, joined with Fourier features of their position in mm.

    Args:
        in_chans: canonical number of channels, see :class:`ConvStem`.
        dim: channels of the tokens.
        stride: pixels per token along each axis.
    """

    def __init__(self, in_chans: int, dim: int, stride: int) -> None:
        super().__init__()
        self.stem = ConvStem(in_chans, dim, stride)
        self.position = FourierPosition(axes=2)
        self.proj = nn.Linear(dim + self.position.channels, dim)

    def forward(self, images_BCHW: Tensor, spacing_mm: Sequence[float] | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Tokens ``B, T, dim`` in row-major order, and the grid ``(rows, columns)`` with ``T = rows * columns``.

        Args:
            images_BCHW: normalised images of any size of at least one token.
            spacing_mm: distance between rows and between columns; None when unknown.
        """
        map_BCHW = self.stem(images_BCHW)
        rows, columns = map_BCHW.shape[-2:]
        extent = None if not spacing_mm else [s * n for s, n in zip(spacing_mm, images_BCHW.shape[-2:], strict=True)]
        position_TF = self.position(grid_coordinates((rows, columns), extent, images_BCHW.device)).to(map_BCHW.dtype)
        content_BTC = map_BCHW.flatten(2).transpose(1, 2)
        tokens_BTC = torch.cat([content_BTC, position_TF.expand(len(content_BTC), -1, -1)], dim=-1)
        return self.proj(tokens_BTC), (rows, columns)
