"""Features of a frozen backbone, computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from data_shards.support.errors import DataError
from data_shards.support.memory import available_bytes, in_words
from finetune.labelled import as_tensor, check_images, spacing_rows
from finetune.memory import bytes_of_one, fitting, images_at_once, words_of
from pretrain.backbone import Medformer, normalise
from pretrain.backbone.position import Spacing
from pretrain.backbone.resampling import sizes_at
from pretrain.metadata import Metadata
from pretrain.spacing import as_spacing, on_device

BATCH_SIZE = 256
"""Planes at a time."""
BATCH_VOXELS = 1 << 20
"""Voxels at a time: the first convolution makes tens of numbers of each."""
_SMALL_VOXELS = 1 << 18
"""Batches up to this size fit everywhere; their need is not measured."""


def embed(
    backbone: Medformer,
    images: np.ndarray,
    metadata: Metadata | None = None,
    batch_size: int | None = None,
    *,
    spacing_mm: np.ndarray | None = None,
    reads: Literal["embedding", "tokens"] = "embedding",
    reduce: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """What the backbone makes of each image, in evaluation mode and without gradient.

    Args:
        backbone: its mode is put back afterwards.
        images: uint8, planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        metadata: of the ``N`` images; None for nothing known.
        batch_size: images at a time; None for as many as :func:`rows_that_fit` says.
        spacing_mm: ``(N, A)``, see :func:`finetune.labelled.spacing_rows`; None for nothing known.
        reads: the embedding or the dense tokens.
        reduce: what is kept of them, batch by batch; None for all.

    Returns:
        float32 ``(N, D)``, or ``(N, T, D)`` for tokens.

    Raises:
        DataError: the images are not what the backbone takes, are too large for the memory that is there, or see
            :func:`check_one_size`.
    """
    check_images(images, "images")
    dense = reads == "tokens"
    spacing_NA = as_rows(spacing_rows(spacing_mm, images, "images"))
    if dense:
        check_one_size(backbone, images, spacing_mm)
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    found: np.ndarray | None = None
    try:
        size = batch_size or rows_that_fit(backbone, images, spacing_mm, dense=dense)
        with torch.no_grad():
            for start in range(0, len(images), size):
                rows = slice(start, start + size)
                batch = normalise(as_tensor(images[rows]).to(device))
                known = None if metadata is None else metadata_rows(metadata, rows).to(device)
                spacing = spacing_of(spacing_NA, rows, device)
                features = backbone.features(batch, known, spacing, dense=dense)
                wanted = features.tokens_BTD if features.tokens_BTD is not None else features.embedding_BD
                if reduce is not None:
                    wanted = reduce(wanted)
                if found is None:
                    found = _room_for((len(images), *wanted.shape[1:]), images.shape[1:])
                found[rows] = wanted.float().cpu().numpy()
    finally:
        backbone.train(was_training)
    assert found is not None  # there is at least one image
    return found


def _room_for(shape: tuple[int, ...], image: Sequence[int]) -> np.ndarray:
    """An array for the features of all images.

    Raises:
        DataError: it is larger than the memory that is there.
    """
    need, free = 4 * math.prod(shape), available_bytes()
    if need > free:
        raise DataError(
            f"the features of {shape[0]} images of {words_of(image)} take {in_words(need)}, {in_words(free)} are "
            f"free{fitting(image, free / need)}; a head that reads the embedding needs far less"
        )
    return np.empty(shape, np.float32)


def rows_that_fit(
    backbone: Medformer, images: np.ndarray, spacing_mm: np.ndarray | None, *, dense: bool, train: bool = False
) -> int:
    """How many images a network takes at a time: as many as :func:`rows_at_once` says and memory has room for.

    Args:
        backbone: in the mode in which it will run.
        images: planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        spacing_mm: ``(N, A)``; a network that reads images at one spacing makes them larger or smaller first.
        dense: whether tokens are asked for.
        train: whether there is a backward pass.

    Raises:
        DataError: there is no room for one image.
    """
    most = rows_at_once(images.shape)
    if min(most, len(images)) * math.prod(images.shape[2:]) <= _SMALL_VOXELS:
        return most
    device = next(backbone.parameters()).device

    def run(batch: torch.Tensor) -> torch.Tensor:
        features = backbone.features(batch, dense=dense)
        return features.embedding_BD if features.tokens_BTD is None else features.tokens_BTD

    size = tuple(images.shape[2:])
    if backbone.voxel_mm is not None and spacing_mm is not None:
        size = max(sizes_at(size, torch.from_numpy(np.asarray(spacing_mm)), backbone.voxel_mm), key=math.prod)
    one = bytes_of_one(run, (images.shape[1], *size), device, train=train)
    return images_at_once(one, images.shape[1:], device, most=most)


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
    """How many images of a batch of this shape a network takes at a time where memory has room for more."""
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
