"""Images moved along a field of displacements."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """What lies at ``x + flow(x)`` in each image, interpolated linearly; the edge goes on outside.

    Args:
        images: ``B,C,H,W`` or ``B,C,D,H,W``.
        flow: displacement in pixels along each axis, in their order, ``B,A,*size``.
    """
    size = images.shape[2:]
    axes = [torch.arange(length, device=flow.device, dtype=flow.dtype) for length in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + flow
    # grid_sample counts from -1 to 1, from the middle of the first pixel to that of the last, and the last axis first.
    scaled = [2 * places[:, axis] / max(length - 1, 1) - 1 for axis, length in enumerate(size)]
    grid = torch.stack(scaled[::-1], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def resized(flow: Tensor, size: tuple[int, ...]) -> Tensor:
    """The same displacements on a grid of another size, in its pixels."""
    if tuple(flow.shape[2:]) == size:
        return flow
    mode = "bilinear" if len(size) == 2 else "trilinear"
    factor = flow.new_tensor([new / old for new, old in zip(size, flow.shape[2:], strict=True)])
    wider: Tensor = F.interpolate(flow, size=size, mode=mode, align_corners=False)
    return wider * factor.view(1, -1, *[1] * len(size))
