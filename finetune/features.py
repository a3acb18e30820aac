"""Features of a frozen backbone, computed once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from finetune.labelled import as_tensor, check_images
from pretrain.backbone import Medformer, normalise
from pretrain.metadata import Metadata

BATCH_SIZE = 256


def embed(
    backbone: Medformer,
    images: np.ndarray,
    metadata: Metadata | None = None,
    batch_size: int = BATCH_SIZE,
    *,
    reads: Literal["embedding", "tokens"] = "embedding",
) -> np.ndarray:
    """What the backbone makes of each image, in evaluation mode and without gradient.

    Args:
        backbone: its mode is put back afterwards.
        images: uint8 ``(N, C, H, W)``.
        metadata: of the ``N`` images; None for nothing known.
        batch_size: images at a time.
        reads: the embedding or the dense tokens.

    Returns:
        float32 ``(N, D)``, or ``(N, T, D)`` for tokens.

    Raises:
        DataError: the images are not what the backbone takes.
    """
    check_images(images, "images")
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    parts = []
    try:
        with torch.no_grad():
            for start in range(0, len(images), batch_size):
                rows = slice(start, start + batch_size)
                batch = normalise(as_tensor(images[rows]).to(device))
                known = None if metadata is None else metadata_rows(metadata, rows).to(device)
                features = backbone.features(batch, known, dense=reads == "tokens")
                wanted = features.tokens_BTD if features.tokens_BTD is not None else features.embedding_BD
                parts.append(wanted.float().cpu().numpy())
    finally:
        backbone.train(was_training)
    return np.concatenate(parts)


def metadata_rows(metadata: Metadata, rows: slice | np.ndarray) -> Metadata:
    """The metadata of some of the images."""
    index = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
    return Metadata(metadata.organ_B[index], metadata.modality_B[index], metadata.task_B[index])
