"""What the generator learns by: photometric losses within a subject, and a registration term between subjects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.brainfuse.generator import Between

_EPSILON = 1e-3


def charbonnier(difference: Tensor) -> Tensor:
    """``sqrt(d^2 + eps^2)``: the absolute value with a gradient at 0 (Charbonnier et al., ICIP 1994)."""
    return (difference.square() + _EPSILON**2).sqrt()


def gradients(images: Tensor) -> Tensor:
    """Differences to the next pixel along each axis, 0 at the end, ``B, A C, *size``."""
    found = []
    for axis in range(2, images.ndim):
        step = images.diff(dim=axis)
        end = torch.zeros_like(images.narrow(axis, 0, 1))
        found.append(torch.cat([step, end], dim=axis))
    return torch.cat(found, dim=1)


def edge_weight(target: Tensor, strength: float) -> Tensor:
    """``1 + strength |gradient| / mean |gradient|`` of each image, ``B,1,*size``: edges count more than flat tissue."""
    size = gradients(target).square().sum(dim=1, keepdim=True).sqrt()
    mean = size.flatten(1).mean(dim=1).view(-1, *[1] * (size.ndim - 1))
    return 1 + strength * size / mean.clamp(min=_EPSILON)


def photometric(found: Between, target: Tensor, *, edges: float = 1.0, gradient: float = 1.0) -> dict[str, Tensor]:
    """Losses of the image in between, where it is known.

    Args:
        found: of the generator.
        target: the image there, ``B,C,*size``.
        edges: how much more edges count.
        gradient: weight of the difference of gradients.

    Returns:
        ``image``: Charbonnier, of values and of gradients, weighted at edges, of the result and of the mean at each
        level; ``occlusion``: of the better of the two moved images at each pixel, for a structure that one of them does
        not have cannot be brought from it (the minimum of Godard et al., ICCV 2019).
    """
    weight = edge_weight(target, edges)
    wanted = gradients(target)

    def of(image: Tensor) -> Tensor:
        loss = (weight * charbonnier(image - target)).mean()
        return loss + gradient * charbonnier(gradients(image) - wanted).mean()

    image, occlusion = of(found.image), target.new_zeros(())
    for moved_a, moved_b, mean in found.levels:
        image = image + of(mean) / (2 * len(found.levels))
        either = torch.minimum(charbonnier(moved_a - target), charbonnier(moved_b - target))
        occlusion = occlusion + (weight * either).mean() / len(found.levels)
    return {"image": image, "occlusion": occlusion}


def smoothness(flow: Tensor, image: Tensor) -> Tensor:
    """Mean Charbonnier of the differences of displacements, less where the image has an edge.

    Args:
        flow: in pixels, ``B,A,*size``.
        image: to which it leads, with values in [-1, 1].
    """
    axes = flow.shape[1]
    loss = flow.new_zeros(())
    for axis in range(2, flow.ndim):
        edge = image.diff(dim=axis).abs().mean(dim=1, keepdim=True)
        loss = loss + (charbonnier(flow.diff(dim=axis)) * torch.exp(-10 * edge)).mean()
    return loss / axes


def registration(found: Between) -> Tensor:
    """Between subjects no image in between is known: both, brought there, shall look alike.

    One minus the local normalised cross-correlation in windows of nine pixels (as VoxelMorph has it, Balakrishnan et
    al., TMI 2019), for subjects differ in brightness, too.
    """
    return (1 - local_correlation(found.moved_a, found.moved_b)).mean()


def local_correlation(first: Tensor, second: Tensor, window: int = 9) -> Tensor:
    """The squared correlation of two images within a window around each pixel, from 0 to 1."""
    pool = F.avg_pool2d if first.ndim == 4 else F.avg_pool3d
    window = min(window, *first.shape[2:])
    window -= 1 - window % 2

    def mean(values: Tensor) -> Tensor:
        found: Tensor = pool(values, window, stride=1, padding=window // 2, count_include_pad=False)
        return found

    mean_1, mean_2 = mean(first), mean(second)
    cross = mean(first * second) - mean_1 * mean_2
    variance_1, variance_2 = mean(first.square()) - mean_1.square(), mean(second.square()) - mean_2.square()
    # Where both are flat they are alike.
    return (cross.square() + 1e-5) / (variance_1.clamp(min=0) * variance_2.clamp(min=0) + 1e-5)
