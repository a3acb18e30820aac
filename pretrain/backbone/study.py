"""What the backbone takes and gives: the images of a batch of subjects, and features of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.vocabulary import Dimensionality, Modality
from pretrain.backbone.latents import COLLECTIONS, Kind
from pretrain.backbone.position import Grid, Spacing
from pretrain.metadata import Metadata


@dataclass(frozen=True)
class StudyImage:
    """One image of each subject of a batch, such as the PET of each; a study has one or several of these.

    Attributes:
        images: normalised, ``B,C,H,W`` or ``B,C,D,H,W``; where a subject lacks the image any finite numbers may stand.
        modality_B: ids of :class:`~data_shards.vocabulary.Modality`, int64; None for unknown.
        spacing_mm: distance of voxels along each axis; one for all or one per subject, see
            :data:`~pretrain.backbone.position.Spacing`.
        present_B: boolean, false where a subject lacks the image; None when all have it.
    """

    images: Tensor
    modality_B: Tensor | None = None
    spacing_mm: Spacing = None
    present_B: Tensor | None = None

    @property
    def kind(self) -> Kind:
        """What selects the latents."""
        modality_B = self.modality_B
        if modality_B is None:
            modality_B = torch.full((self.images.shape[0],), int(Modality.unknown), device=self.images.device)
        volume = self.images.ndim == 5
        return Kind(modality_B, Dimensionality.volumetric if volume else Dimensionality.planar, self.present_B)


@dataclass(frozen=True)
class Features:
    """What the backbone makes of a batch of images.

    Attributes:
        embedding_BD: one vector per image.
        tokens_BTD: one vector per cell of the input grid in row-major order, or None when they were not asked for.
        grid: cells along each axis; their product is ``T``.
        voxels: voxels along each axis of what the network read; None when it read the images as they were.
    """

    embedding_BD: Tensor
    tokens_BTD: Tensor | None
    grid: tuple[int, ...]
    voxels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class StudyFeatures:
    """What the backbone makes of a batch of studies.

    Attributes:
        embedding_BD: one vector per subject.
        tokens: for each image of the study one vector per cell of its grid, ``B, T, D``; empty when they were not
            asked for. Where a subject lacks the image they mean nothing.
        grids: for each image of the study the cells along each axis, those of the first subject if they differ.
        voxels: for each image the voxels along each axis of what the network read, likewise.
    """

    embedding_BD: Tensor
    tokens: tuple[Tensor, ...]
    grids: tuple[tuple[int, ...], ...]
    voxels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Encoded:
    """What the latents know of a batch, and what dense queries are made of.

    Attributes:
        latents_BND: to be asked by :meth:`~pretrain.backbone.perceiver.Medformer.decode`.
        tokens: of each image ``B, T, D``: content and position.
        grids: of each image.
        stages: the latents after the layers that were asked for.
        mask_BT: over the tokens of all images, true where one is of an image that is there; None when all are.
    """

    latents_BND: Tensor
    tokens: tuple[Tensor, ...]
    grids: tuple[Grid, ...]
    stages: tuple[Tensor, ...] = ()
    mask_BT: Tensor | None = None


def checked(images: Sequence[StudyImage], metadata: Metadata | None, dtype: torch.dtype) -> Metadata:
    """What is known of the subjects, once :func:`check_study` has found no fault.

    Args:
        images: the study.
        metadata: of the subjects; None for nothing.
        dtype: of the weights.

    Raises:
        ValueError: see :func:`check_study`.
    """
    if metadata is None and images and isinstance(first := images[0].images, Tensor):
        metadata = Metadata.uniform(first.shape[:1].numel(), device=first.device)
    check_study(images, metadata, dtype)
    assert metadata is not None
    return metadata


def mask_of(images: Sequence[StudyImage], tokens: Sequence[Tensor]) -> Tensor | None:
    """``B, T``: true where a token is of an image that is there; None when all are.

    Args:
        images: the study.
        tokens: of each image.
    """
    if all(image.present_B is None for image in images):
        return None
    parts = []
    for image, tokens_BTD in zip(images, tokens, strict=True):
        present_B = image.present_B
        if present_B is None:
            present_B = torch.ones(tokens_BTD.shape[0], dtype=torch.bool, device=tokens_BTD.device)
        parts.append(present_B[:, None].expand(-1, tokens_BTD.shape[1]))
    return torch.cat(parts, dim=1)


def check_study(study: Sequence[StudyImage], metadata: Metadata | None, dtype: torch.dtype) -> None:
    """Refuse what would come out as an error far from its cause, or as no error at all.

    Values are only looked at on the CPU: on a device that would wait for it in the middle of a step.

    Args:
        study: the images.
        metadata: of the subjects.
        dtype: of the weights.

    Raises:
        ValueError: no image, no tensors, other axes than ``B,C,H,W`` or ``B,C,D,H,W``, an empty axis, another precision
            than the weights have, metadata or spacings of another number of images, ids that are no integers; on the
            CPU also a value that is not finite, a spacing that is no length, or an id that the vocabulary lacks.
    """
    if not study:
        raise ValueError("a study of no images; at least one is expected")
    for image in study:
        if not isinstance(image.images, Tensor):
            raise ValueError(f"expected a tensor of images, found {type(image.images).__name__}")
    if not isinstance(metadata, Metadata):
        raise ValueError(f"expected Metadata of the images, found {type(metadata).__name__}")
    _check_rows("organ", metadata.organ_B)
    for image in study:
        _check_image(image, metadata.organ_B.shape[0])
        if image.images.dtype != dtype and not torch.is_autocast_enabled(image.images.device.type):
            raise ValueError(f"images of {image.images.dtype}, weights of {dtype}: convert one of them or use autocast")
    _check_rows("task", metadata.task_B, metadata.organ_B.shape[0])
    if metadata.organ_B.device.type == "cpu" and not torch.compiler.is_compiling():
        for name, ids_B in (("organ", metadata.organ_B), ("task", metadata.task_B)):
            _check_ids(name, ids_B)


def _check_rows(name: str, rows_B: Tensor, count: int | None = None, boolean: bool = False) -> None:
    """Whether it has one id, or one truth, for each of ``count`` images."""
    if not isinstance(rows_B, Tensor):
        raise ValueError(f"{name} is a {type(rows_B).__name__}, a tensor is expected")
    kind, dtypes = ("booleans", (torch.bool,)) if boolean else ("int64", (torch.int64, torch.int32))
    if rows_B.ndim != 1 or rows_B.dtype not in dtypes:  # shorter integers would index as masks, or not at all
        raise ValueError(f"{name} has shape {tuple(rows_B.shape)} of {rows_B.dtype}, {kind} of shape (B,) are expected")
    if count is not None and rows_B.shape[0] != count:
        raise ValueError(f"{name} of {rows_B.shape[0]} images, the batch has {count}")


def _check_image(image: StudyImage, count: int) -> None:
    shape, dtype = tuple(image.images.shape), image.images.dtype
    if len(shape) not in (4, 5) or 0 in shape:
        raise ValueError(f"expected images B,C,H,W or B,C,D,H,W with no empty axis, found shape {shape}")
    if not dtype.is_floating_point:
        raise ValueError(f"expected normalised images of floats, found {dtype}")
    if count != shape[0]:
        raise ValueError(f"metadata of {count} images, the batch has {shape[0]}")
    if image.modality_B is not None:
        _check_rows("modality_B", image.modality_B, shape[0])
    if image.present_B is not None:
        _check_rows("present_B", image.present_B, shape[0], boolean=True)
    spacing_mm = image.spacing_mm if isinstance(image.spacing_mm, Tensor) else None
    if spacing_mm is not None and spacing_mm.shape[:1] != shape[:1]:
        raise ValueError(f"spacing_mm has shape {tuple(spacing_mm.shape)}, the batch has {shape[0]} images")
    if image.images.device.type == "cpu" and not torch.compiler.is_compiling():
        if not image.images.isfinite().all():
            raise ValueError("the images hold values that are not finite")
        _check_ids("modality", image.kind.modality_B)
        if spacing_mm is not None and ((spacing_mm < 0) | spacing_mm.isinf()).any():
            raise ValueError("spacing_mm holds what is no length; lengths above 0, or NaN for unknown, are expected")


def _check_ids(name: str, ids_B: Tensor) -> None:
    entries = len(COLLECTIONS[name])
    wrong = ids_B[(ids_B < 0) | (ids_B >= entries)]
    if len(wrong):
        raise ValueError(f"{name} id {int(wrong[0])} is not in the vocabulary, whose ids are 0 to {entries - 1}")
