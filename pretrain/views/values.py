"""Numbers per image against the pixels of images, without waiting for the device to say which images are meant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def column(values_B: Tensor, like: Tensor) -> Tensor:
    """A number for each image, in the type of ``like`` and of a shape that spreads over its pixels."""
    return values_B.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def image_means(images: Tensor) -> Tensor:
    """The mean of each image, ``B``, which does not depend on the company it is in.

    Rows first: torch splits the sum of one large image between its threads, but not that of several, and rounds them
    differently.
    """
    rows = images.mean(dim=-1)
    return (rows.mean(dim=-1) if images.ndim == 5 else rows).flatten(1).mean(dim=1)


def where_chosen(images: Tensor, chosen_B: Tensor, change: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Chosen images changed, the others as they are.

    On a CPU only those are computed that are chosen. Elsewhere all are: which they are would have to be waited for.

    Args:
        images: ``B,C,...``.
        chosen_B: which, booleans.
        change: from images and their values to changed images of the same shape.
        values: further tensors of ``B`` rows.
    """
    if images.device.type != "cpu":
        return torch.where(column(chosen_B, images) > 0, change(images, *values), images)
    rows = chosen_B.nonzero()[:, 0]
    if not len(rows):
        return images
    if len(rows) == len(images):
        return change(images, *values)
    return images.index_copy(0, rows, change(images[rows], *(each[rows] for each in values)))
