"""What an array of images says of how new ones must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from data_shards.card import DatasetCard
from data_shards.vocabulary import Modality, Organ, Task
from finetune.readers.recipe import ONLY, ImageRecipe, Known, Recipe


def array_recipe(
    images: Sequence[np.ndarray],
    spacing_mm: Sequence[np.ndarray | None],
    *,
    data: Literal["shards", "archive", "array"] = "array",
    card: DatasetCard | None = None,
    organ: Organ = Organ.unknown,
    modality: Modality = Modality.unknown,
) -> Recipe:
    """The recipe of arrays ``(N, C, H, W)`` or ``(N, C, D, H, W)`` of 8 bits, whose values were taken as they are.

    Args:
        images: one array, or one for each split; all of one number of channels and of axes.
        spacing_mm: of each, ``(N, A)`` or ``(A,)``, NaN where it is not known; None where nothing is known.
        data: what they were read from.
        card: of the dataset, where there is one.
        organ: body part shown, where there is no card.
        modality: how they were made, where there is no card.
    """
    sizes = {part.shape[2:] for part in images}
    first = images[0]
    image = ImageRecipe(
        channels=first.shape[1],
        dimensionality="planar" if first.ndim == 4 else "volumetric",
        size=sizes.pop() if len(sizes) == 1 else None,
        spacing=_known(spacing_mm),
    )
    told = {} if card is None else {"task": card.task, "classes": card.classes}
    return Recipe(
        data=data,
        images={ONLY: image},
        organ=organ.name if card is None else card.organ,
        modality=modality.name if card is None else card.modality,
        **{"task": Task.unknown.name, **told},
    )


def _known(spacing_mm: Sequence[np.ndarray | None]) -> Known:
    """Of how many images the distance of voxels is known along every axis."""
    known = [False if part is None else bool(np.isfinite(part).all()) for part in spacing_mm]
    if all(known):
        return "all"
    some = any(np.isfinite(part).all(axis=-1).any() for part in spacing_mm if part is not None)
    return "some" if some else "none"
