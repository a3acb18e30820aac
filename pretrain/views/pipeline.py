"""One augmented view of a batch, computed on the device that holds the batch."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pretrain.backbone import normalise
from pretrain.views import geometry, intensity
from pretrain.views.config import IDENTITY, ViewConfig
from pretrain.views.counter_rng import normals, uniforms


def augment(images_BCHW: Tensor, keys_B: np.ndarray, config: ViewConfig) -> Tensor:
    """Augment each image by the random numbers of its key.

    Pixels are a function of the image, its key and ``config`` alone: bit for bit the same in whatever batch and on
    whatever worker the image is.

    Args:
        images_BCHW: uint8 images.
        keys_B: one key per image, see :func:`~pretrain.views.counter_rng.sample_keys`.
        config: how strongly.

    Returns:
        Normalised float32 images in [-1, 1], as :func:`~pretrain.backbone.normalise` makes them.
    """
    images = normalise(images_BCHW)
    if config == IDENTITY:
        return images
    images = (images + 1) / 2
    u_BK = uniforms(keys_B, geometry.DRAWS + intensity.DRAWS + 1)
    maps = geometry.affine_maps(u_BK, config, *images.shape[-2:]).to(images.device)
    images = geometry.resample(images, maps, config.padding)
    u_BK = u_BK[:, geometry.DRAWS :]
    if config.intensity:
        images = intensity.adjust_intensity(images, u_BK, config)
    if config.blur:
        images = intensity.blur(images, u_BK, config)
    if config.noise:
        strength_B = u_BK[:, intensity.DRAWS] * config.noise
        normals_BP = normals(keys_B ^ np.uint64(0x5DEECE66D), images[0].numel())
        images = intensity.add_noise(images, strength_B, normals_BP)
    return images * 2 - 1
