"""Bags of different sizes side by side: which instances there are."""

from __future__ import annotations

import torch
from torch import Tensor

from data_shards.support.errors import DataError


def checked(instances: Tensor, mask_BH: Tensor | None) -> Tensor:
    """The mask of the instances, all true where none is given.

    Args:
        instances: ``(B, H, ...)``.
        mask_BH: true where there is an instance; None where all are.

    Raises:
        DataError: the mask is of another shape, or a bag has no instance.
    """
    if mask_BH is None:
        mask_BH = torch.ones(instances.shape[:2], dtype=torch.bool, device=instances.device)
    elif mask_BH.shape != instances.shape[:2]:
        raise DataError(f"a mask of shape {tuple(mask_BH.shape)} for instances of shape {tuple(instances.shape)}")
    filled_B = mask_BH.any(dim=1)
    if not bool(filled_B.all()):
        raise DataError(
            f"bag {int((~filled_B).int().argmax())} of {len(filled_B)} has no instance, expected one at least"
        )
    return mask_BH


def masked_mean(values_BHO: Tensor, mask_BH: Tensor) -> Tensor:
    """The mean over the instances that are there, ``(B, O)``."""
    kept_BHO = values_BHO.masked_fill(~mask_BH[..., None], 0)
    return kept_BHO.sum(dim=1) / mask_BH.sum(dim=1, keepdim=True).to(values_BHO.dtype)


def masked_max(values_BHO: Tensor, mask_BH: Tensor) -> Tensor:
    """The largest of the instances that are there, ``(B, O)``."""
    return values_BHO.masked_fill(~mask_BH[..., None], -torch.inf).amax(dim=1)


def masked_min(values_BHO: Tensor, mask_BH: Tensor) -> Tensor:
    """The smallest of the instances that are there, ``(B, O)``."""
    return values_BHO.masked_fill(~mask_BH[..., None], torch.inf).amin(dim=1)
