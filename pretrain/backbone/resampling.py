"""Images of any spacing brought to the one at which a network reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.backbone.position import Spacing, check_spacing
from pretrain.backbone.study import StudyImage
from pretrain.metadata import Metadata

MOST_VOXELS = 1 << 31
"""More than this is no image of a patient at any spacing."""


def at_spacing(image: StudyImage, voxel_mm: float) -> StudyImage:
    """The same extent in voxels of ``voxel_mm``, or as nearly as a whole number of them allows.

    Along axes that lose voxels each new one is the average of what it covers; along those that gain some they are
    interpolated linearly. Axes of unknown spacing stay as they are.

    Args:
        image: of one image for each subject.
        voxel_mm: distance of the new voxels along every axis.

    Raises:
        ValueError: the images become of different sizes (see :func:`rows_of_one_size`), or see
            :func:`~pretrain.backbone.position.check_spacing`.
    """
    if image.spacing_mm is None:
        return image
    sizes = sizes_at(image.images.shape[2:], image.spacing_mm, voxel_mm)
    if len(sizes) > 1 and image.present_B is not None:  # any numbers may stand where a subject lacks the image
        sizes = [size for size, present in zip(sizes, image.present_B.tolist(), strict=True) if present] or sizes[:1]
    sizes = list(dict.fromkeys(sizes))
    if len(sizes) > 1:
        raise ValueError(
            f"images of different spacings become of different sizes at voxel_mm {voxel_mm}, such as {sizes[0]} and "
            f"{sizes[1]}: what is asked for needs one size, give them apart"
        )
    size, wanted = tuple(image.images.shape[2:]), sizes[0]
    if wanted == size:
        return image
    images = image.images
    fewer = tuple(min(new, count) for new, count in zip(wanted, size, strict=True))
    if fewer != size:
        images = F.interpolate(images, size=fewer, mode="area")
    if wanted != fewer:
        images = F.interpolate(images, size=wanted, mode="bilinear" if images.ndim == 4 else "trilinear")
    factors = [count / new for count, new in zip(size, wanted, strict=True)]
    if isinstance(spacing_mm := image.spacing_mm, Tensor):
        columns = spacing_mm.unbind(1)
        changed = torch.stack([column * factor for column, factor in zip(columns, factors, strict=True)], dim=1)
        return replace(image, images=images, spacing_mm=changed)
    assert spacing_mm is not None
    told = tuple(length * factor for length, factor in zip(spacing_mm, factors, strict=True))
    return replace(image, images=images, spacing_mm=told)


def rows_of_one_size(study: Sequence[StudyImage], voxel_mm: float) -> list[Tensor]:
    """Row numbers of the subjects whose images become of the same sizes, in the order of the first of each group.

    Spacings that lie on a device are waited for.
    """
    if not any(isinstance(image.spacing_mm, Tensor) for image in study):
        return [torch.arange(study[0].images.shape[0])]
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    tables = [sizes_at(image.images.shape[2:], image.spacing_mm, voxel_mm) for image in study]
    for row in range(len(study[0].images)):
        groups.setdefault(tuple(table[row % len(table)] for table in tables), []).append(row)
    return [torch.tensor(rows) for rows in groups.values()]


def study_rows(study: Sequence[StudyImage], metadata: Metadata, rows: Tensor) -> tuple[list[StudyImage], Metadata]:
    """Some of the subjects."""
    images = [
        StudyImage(
            _chosen(image.images, rows),
            None if image.modality_B is None else _chosen(image.modality_B, rows),
            _chosen(image.spacing_mm, rows) if isinstance(image.spacing_mm, Tensor) else image.spacing_mm,
            None if image.present_B is None else _chosen(image.present_B, rows),
        )
        for image in study
    ]
    ids = (metadata.organ_B, metadata.modality_B, metadata.task_B)
    return images, Metadata(*(_chosen(ids_B, rows) for ids_B in ids))


def _chosen(table: Tensor, rows: Tensor) -> Tensor:
    return table[rows.to(table.device)]


def sizes_at(counts: Sequence[int], spacing_mm: Spacing, voxel_mm: float) -> list[tuple[int, ...]]:
    """Voxels along each axis of the same extent at another spacing: of each image, or once when all have the same.

    Args:
        counts: voxels along each axis.
        spacing_mm: of these; an axis on which it is unknown stays as it is. One that is on a device is waited for.
        voxel_mm: distance of the new voxels along every axis.

    Raises:
        ValueError: an image would become less than a voxel or more than :data:`MOST_VOXELS`, or see
            :func:`~pretrain.backbone.position.check_spacing`.
    """
    check_spacing(spacing_mm, len(counts))
    if isinstance(spacing_mm, Tensor):
        lengths = [tuple(row) for row in spacing_mm.tolist()]
    else:
        lengths = [tuple(spacing_mm or [math.nan] * len(counts))]
    return [_size_at(counts, row, voxel_mm) for row in lengths]


def _size_at(counts: Sequence[int], lengths: Sequence[float], voxel_mm: float) -> tuple[int, ...]:
    size = tuple(
        round(count * length / voxel_mm) if 0 < length < math.inf else count
        for count, length in zip(counts, lengths, strict=True)
    )
    if not any(size) or math.prod(size) > MOST_VOXELS:
        raise ValueError(
            f"an image of {tuple(counts)} voxels, {tuple(lengths)} mm apart, would become one of {size} at voxel_mm "
            f"{voxel_mm}: are the lengths in mm?"
        )
    return tuple(max(1, length) for length in size)
