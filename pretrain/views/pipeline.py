"""One augmented view of a batch, computed on the device that holds the batch."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pretrain.backbone import normalise
from pretrain.views import geometry, intensity, volumes
from pretrain.views.config import ViewConfig
from pretrain.views.counter_rng import normals, uniforms

_PLANE_DRAWS = geometry.DRAWS + intensity.DRAWS + 1


def augment(
    images: Tensor,
    keys_B: np.ndarray,
    config: ViewConfig,
    spacing_mm_BA: Tensor | None = None,
    view: int = 0,
) -> Tensor:
    """Augment each image by the random numbers of its key.

    Pixels are a function of the image (with its spacing when it is a volume), its key and ``config`` alone: bit for bit
    the same in whatever batch and on whatever worker the image is. Planes and the slices of volumes take the same
    numbers of a key; what only volumes need is drawn after those.

    Args:
        images: uint8 planes ``B,C,H,W`` or volumes ``B,C,D,H,W``.
        keys_B: one key per image, see :func:`~pretrain.views.counter_rng.sample_keys`.
        config: how strongly.
        spacing_mm_BA: on the CPU, distance of voxels along each axis of volumes, NaN where it is not known: rotations
            are rigid in mm where it is known, else in voxels. Planes are rotated in pixels.
        view: which of the views it is, for ``config.coarser`` and ``config.slices``.

    Returns:
        Normalised float32 images in [-1, 1], as :func:`~pretrain.backbone.normalise` makes them. Their axes are
        ``ceil(size / config.coarser[view])`` long; where ``config.slices[view]``, volumes have become planes.
    """
    images = normalise(images)
    cut = images.ndim == 5 and config.slices[view]
    u_BK = uniforms(keys_B, _PLANE_DRAWS + (volumes.DRAWS + 1 if images.ndim == 5 else 0))
    if config.is_identity(images.ndim - 2):
        return coarsen(volumes.slices(images, u_BK[:, -1]) if cut else images, config.coarser[view])
    images = _moved((images + 1) / 2, u_BK, config, spacing_mm_BA)
    images = coarsen(volumes.slices(images, u_BK[:, -1]) if cut else images, config.coarser[view])
    u_BK = u_BK[:, geometry.DRAWS :]
    if config.intensity:
        images = intensity.adjust_intensity(images, u_BK, config)
    if config.blur:
        images = intensity.blur(images, u_BK, config)
    if config.noise:
        strength_B = u_BK[:, intensity.DRAWS] * config.noise
        images = intensity.add_noise(images, strength_B, _normals(keys_B ^ np.uint64(0x5DEECE66D), images))
    return images * 2 - 1


def coarsen(images: Tensor, factor: float) -> Tensor:
    """The same extent in pixels or voxels that are ``factor`` times as long, each the average of what it covers.

    Where ``factor`` does not divide an axis, it becomes ``ceil(size / factor)`` long and its pixels a little shorter.
    """
    size = tuple(math.ceil(length / factor) for length in images.shape[2:])
    if size == tuple(images.shape[2:]):
        return images
    return F.interpolate(images, size=size, mode="area")


def _moved(images: Tensor, u_BK: np.ndarray, config: ViewConfig, spacing_mm_BA: Tensor | None) -> Tensor:
    if images.ndim == 4:
        maps = geometry.affine_maps(u_BK, config, *images.shape[-2:]).to(images.device)
        return geometry.resample(images, maps, config.padding)
    depth, height, width = images.shape[2:]
    u_BK = np.concatenate([u_BK[:, : geometry.DRAWS], u_BK[:, _PLANE_DRAWS:]], axis=1)
    spacing = None if spacing_mm_BA is None else spacing_mm_BA.numpy()
    maps = volumes.volume_maps(u_BK, config, (depth, height, width), spacing).to(images.device)
    return volumes.resample_volumes(images, maps, config.padding)


def _normals(keys_B: np.ndarray, images: Tensor) -> np.ndarray:
    """Normal numbers for every pixel; volume by volume, for on the way they take several times the memory."""
    count = math.prod(images.shape[1:])
    if images.ndim == 4 or not len(keys_B):
        return normals(keys_B, count)
    return np.concatenate([normals(keys_B[row : row + 1], count) for row in range(len(keys_B))])
