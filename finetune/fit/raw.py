"""Raw pixels as features: what small images say without any network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.intensity import BYTES
from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.images import Study
from pretrain.intensity import in_range

RAW_SIDE = 28
"""Raw pixels are averaged down to at most so many along each axis."""


def raw_pixels(cases: Cases, sides: Mapping[str, tuple[int, ...]] | None = None) -> np.ndarray:
    """Intensities in [0, 1], each axis averaged to ``sides``; the mean over the studies of a case.

    Args:
        cases: every study has the same image names.
        sides: of each image; those of :func:`raw_sides` when left out.

    Returns:
        float32 ``(N, F)``.

    Raises:
        DataError: a case lacks one of the images, or it has another number of axes.
    """
    sides = raw_sides(cases) if sides is None else sides
    if sides is None:
        raise DataError(f"{cases.name}: not every case has the same images; they have no raw pixels in common")
    assert cases.rows is not None
    pictures, rows = cases.pictures.home(cases.rows)
    memo = pictures.memo.setdefault(("raw", tuple(sorted(sides.items()))), {})
    for row in np.unique(rows).tolist():
        if row not in memo:
            memo[row] = flat_pixels(pictures.study(row), sides, cases.name)
    found_MF = np.stack([memo[row] for row in rows.tolist()])
    if cases.bags is None:
        return found_MF
    starts = np.searchsorted(cases.bags, np.arange(len(cases)))
    total_NF = np.add.reduceat(found_MF.astype(np.float64), starts)
    return (total_NF / np.bincount(cases.bags)[:, None]).astype(np.float32)


def raw_sides(cases: Cases) -> dict[str, tuple[int, ...]] | None:
    """The sides to which the images of these cases are averaged: none is larger than the smallest image.

    None where cases do not have the same images, so that they have no raw pixels in common.
    """
    found: dict[str, tuple[int, ...]] = {}
    assert cases.rows is not None
    for number, row in enumerate(np.unique(cases.rows).tolist()):
        images = cases.pictures.study(row).images
        if number and set(images) != set(found):
            return None
        for name, image in images.items():
            sides = tuple(min(side, RAW_SIDE) for side in image.pixels.shape[1:])
            if len(found.get(name, sides)) != len(sides):
                return None
            found[name] = tuple(map(min, found.get(name, sides), sides))
    return found


def _shown(study: Study, name: str) -> Tensor:
    """An image in [0, 1]."""
    pixels, rule = study.images[name].pixels, study.rule(name)
    if rule == BYTES:
        return torch.from_numpy(pixels.astype(np.float32)) / 255
    return (in_range(torch.from_numpy(pixels[None].copy()), rule)[0] + 1) / 2


def flat_pixels(study: Study, sides: Mapping[str, tuple[int, ...]], of: str) -> np.ndarray:
    """The raw pixels of one study, float32 ``(F,)``.

    Args:
        study: with all images that have sides.
        sides: to which each is averaged.
        of: what is read, for a message.

    Raises:
        DataError: an image is missing, or has another number of axes.
    """
    parts = []
    for name in sorted(sides):
        if name not in study.images:
            raise DataError(f"{of}: a case has no image {name!r}, whose raw pixels are read")
        pixels = _shown(study, name)
        if pixels.ndim - 1 != len(sides[name]):
            raise DataError(f"{of}: planes and volumes have no raw pixels in common")
        if tuple(pixels.shape[1:]) != sides[name]:
            average: Callable[..., Tensor] = F.adaptive_avg_pool2d if pixels.ndim == 3 else F.adaptive_avg_pool3d
            pixels = average(pixels, sides[name])
        parts.append(pixels.flatten().numpy())
    return np.concatenate(parts)
