"""Features of a frozen backbone, computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from data_shards.support.errors import DataError
from finetune.labelled import as_tensor, check_images, spacing_rows
from pretrain.backbone import Medformer, normalise
from pretrain.backbone.position import Spacing
from pretrain.backbone.resampling import sizes_at
from pretrain.metadata import Metadata
from pretrain.spacing import as_spacing, on_device

BATCH_SIZE = 256
"""Planes at a time."""
BATCH_VOXELS = 1 << 20
"""Voxels at a time: the first convolution makes tens of numbers of each."""


def embed(
    backbone: Medformer,
    images: np.ndarray,
    metadata: Metadata | None = None,
    batch_size: int | None = None,
    *,
    spacing_mm: np.ndarray | None = None,
    reads: Literal["embedding", "tokens"] = "embedding",
) -> np.ndarray:
    """What the backbone makes of each image, in evaluation mode and without gradient.

    Args:
        backbone: its mode is put back afterwards.
        images: uint8, planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        metadata: of the ``N`` images; None for nothing known.
        batch_size: images at a time; None for as many as :func:`rows_at_once` says.
        spacing_mm: ``(N, A)``, see :func:`finetune.labelled.spacing_rows`; None for nothing known.
        reads: the embedding or the dense tokens.

    Returns:
        float32 ``(N, D)``, or ``(N, T, D)`` for tokens.

    Raises:
        DataError: the images are not what the backbone takes, or see :func:`check_one_size`.
    """
    check_images(images, "images")
    spacing_NA = as_rows(spacing_rows(spacing_mm, images, "images"))
    if reads == "tokens":
        check_one_size(backbone, images, spacing_mm)
    size = rows_at_once(images.shape) if batch_size is None else batch_size
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    parts = []
    try:
        with torch.no_grad():
            for start in range(0, len(images), size):
                rows = slice(start, start + size)
                batch = normalise(as_tensor(images[rows]).to(device))
                known = None if metadata is None else metadata_rows(metadata, rows).to(device)
                spacing = spacing_of(spacing_NA, rows, device)
                features = backbone.features(batch, known, spacing, dense=reads == "tokens")
                wanted = features.tokens_BTD if features.tokens_BTD is not None else features.embedding_BD
                parts.append(wanted.float().cpu().numpy())
    finally:
        backbone.train(was_training)
    return np.concatenate(parts)


def check_one_size(backbone: Medformer, images: np.ndarray, spacing_mm: np.ndarray | None) -> None:
    """Whether all images give as many tokens: not so where a network reads them at one spacing and they have several.

    Args:
        backbone: whose ``voxel_mm`` it is.
        images: planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        spacing_mm: ``(N, A)``; None for nothing known.

    Raises:
        DataError: they give different numbers of tokens.
    """
    if backbone.voxel_mm is None or spacing_mm is None:
        return
    sizes = list(dict.fromkeys(sizes_at(images.shape[2:], torch.from_numpy(np.asarray(spacing_mm)), backbone.voxel_mm)))
    if len(sizes) > 1:
        raise DataError(
            f"images become {sizes[0]} and {sizes[1]} voxels at the {backbone.voxel_mm} mm at which this network reads "
            "them, so their tokens differ in number: choose a head that reads the embedding, or bring the images to "
            "one spacing and size"
        )


def rows_at_once(shape: Sequence[int]) -> int:
    """How many images of a batch of this shape a network takes at a time."""
    if len(shape) == 4:
        return BATCH_SIZE
    return max(1, min(BATCH_SIZE, BATCH_VOXELS // math.prod(shape[2:])))


def as_rows(spacing_mm: np.ndarray | None) -> torch.Tensor | None:
    """Spacing as a tensor."""
    return None if spacing_mm is None else torch.from_numpy(spacing_mm)


def spacing_of(spacing_NA: torch.Tensor | None, rows: slice | np.ndarray, device: torch.device) -> Spacing:
    """The spacing of some of the images, as the backbone takes it."""
    if spacing_NA is None:
        return None
    index = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
    return on_device(as_spacing(spacing_NA[index]), device)


def metadata_rows(metadata: Metadata, rows: slice | np.ndarray) -> Metadata:
    """The metadata of some of the images."""
    index = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
    return Metadata(metadata.organ_B[index], metadata.modality_B[index], metadata.task_B[index])
