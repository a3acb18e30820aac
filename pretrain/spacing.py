"""Distances of voxels, from columns of a table with gaps to what the backbone takes."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.backbone.position import Spacing


def as_spacing(spacing_mm_BA: Tensor | None) -> Spacing:
    """The shortest form that says the same of every image of a batch.

    Unknown distances stay unknown. A batch of which nothing is known gives None, and one whose images all have the same
    known spacing gives that one: positions are then computed once, not for each image.

    Args:
        spacing_mm_BA: on the CPU, one column per spatial axis; what is not a length above 0 (NaN, 0) is not known. None
            when nothing is known.

    Returns:
        As :meth:`~pretrain.backbone.perceiver.Medformer.features` takes it; a tensor has NaN where nothing is known.
    """
    if spacing_mm_BA is None:
        return None
    known_BA = spacing_mm_BA.isfinite() & (spacing_mm_BA > 0)
    if not known_BA.any():
        return None
    if known_BA.all() and (spacing_mm_BA == spacing_mm_BA[:1]).all():
        return tuple(float(length) for length in spacing_mm_BA[0])
    return torch.where(known_BA, spacing_mm_BA, torch.nan)


def on_device(spacing_mm: Spacing, device: torch.device) -> Spacing:
    """The same spacing, where it is to be used."""
    return spacing_mm.to(device, non_blocking=True) if isinstance(spacing_mm, Tensor) else spacing_mm
