"""The Perceiver IO backbone; importing this package registers its sizes with timm."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.backbone import sizes as _sizes  # noqa: F401  (registers the sizes)
from pretrain.backbone.contract import Backbone
from pretrain.backbone.perceiver import Medformer
from pretrain.backbone.study import Features, StudyFeatures, StudyImage

__all__ = ["Backbone", "Features", "Medformer", "StudyFeatures", "StudyImage", "normalise"]


def normalise(images: Tensor) -> Tensor:
    """Unsigned 8-bit intensities to floats in [-1, 1]: mean 0.5, std 0.5, as MedMNIST's reference recipe does.

    Raises:
        TypeError: the images are not ``torch.uint8``.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"expected uint8 images, found {images.dtype}")
    return images.to(torch.float32).div_(127.5).sub_(1.0)
