"""Slices of one subject with those between them, and slices of two subjects at matched height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.support.errors import DataError


@dataclass(frozen=True)
class Triples:
    """Two images and the one between them.

    Attributes:
        a, b, target: ``B,C,H,W``; with context ``a`` and ``b`` have the slices around them along the channels.
        t: where the target is, ``(B,)``.
    """

    a: Tensor
    b: Tensor
    target: Tensor
    t: Tensor


def slices_at(
    volumes: Sequence[Tensor], rows: Tensor, places: Tensor, context: int = 0, slab: int | None = None
) -> Tensor:
    """Slices of volumes ``C,D,H,W``, with the slices around each along the channels; the end goes on outside.

    Args:
        volumes: of one size across D.
        rows: of which volume, ``(B,)``.
        places: which slice, ``(B,)``.
        context: how many on either side.
        slab: slabs of so many slices from there on in place of slices, for a generator of volumes.
    """
    found = []
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        depth = volumes[row].shape[1]
        if slab is not None:
            found.append(volumes[row][:, place : place + slab])
            continue
        around = [min(max(place + step, 0), depth - 1) for step in range(-context, context + 1)]
        found.append(volumes[row][:, around].transpose(0, 1).flatten(0, 1))
    return torch.stack(found)


def triples(
    volumes: Sequence[Tensor],
    count: int,
    gaps: Sequence[int],
    generator: torch.Generator,
    context: int = 0,
    slab: int | None = None,
) -> Triples:
    """Random triples of one subject each: two slices (or slabs) ``2 g`` apart and one between them.

    The one between is the middle one half of the time, which is what fusion asks for, else any.

    Args:
        volumes: ``C,D,H,W``, one per subject.
        count: how many triples.
        gaps: ``g`` is one of them; those that a volume is too short for are not drawn of it.
        generator: random numbers.
        context: slices around ``a`` and ``b``.
        slab: slices of a slab; None for slices.

    Raises:
        DataError: a volume is too short for the smallest gap.
    """
    rows = torch.randint(len(volumes), (count,), generator=generator)
    first, second, middle, times = [], [], [], []
    for row in rows.tolist():
        depth = volumes[row].shape[1] - (slab or 1) + 1
        fitting = [gap for gap in gaps if 2 * gap < depth]
        if not fitting:
            raise DataError(f"a volume of {volumes[row].shape[1]} slices has none {2 * min(gaps)} apart")
        gap = fitting[int(torch.randint(len(fitting), (), generator=generator))]
        start = int(torch.randint(depth - 2 * gap, (), generator=generator))
        step = gap
        if torch.rand((), generator=generator) < 0.5:
            step = 1 + int(torch.randint(2 * gap - 1, (), generator=generator))
        first.append(start)
        second.append(start + 2 * gap)
        middle.append(start + step)
        times.append(step / (2 * gap))
    a, b = (slices_at(volumes, rows, torch.tensor(places), context, slab) for places in (first, second))
    return Triples(a, b, slices_at(volumes, rows, torch.tensor(middle), 0, slab), torch.tensor(times))


def pairs(
    volumes: Sequence[Tensor],
    subjects: Sequence[Any] | np.ndarray,
    count: int,
    generator: torch.Generator,
    context: int = 0,
    slab: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Random slices of two subjects at the same share of the depth of each.

    Args:
        volumes: of two subjects at least.
        subjects: of each volume.
        count: how many pairs.
        generator: random numbers.
        context: slices around each.
        slab: slices of a slab; None for slices.
    """
    names, subject_N = np.unique(np.asarray(subjects), return_inverse=True)
    rows = []
    for _ in range(count):
        two = torch.randperm(len(names), generator=generator)[:2].tolist()
        own = [np.flatnonzero(subject_N == subject) for subject in two]
        rows.append([int(each[int(torch.randint(len(each), (), generator=generator))]) for each in own])
    rows_B2 = torch.tensor(rows)
    height = torch.rand(count, generator=generator)
    found = []
    for side in range(2):
        depths = torch.tensor([volumes[row].shape[1] - (slab or 1) + 1 for row in rows_B2[:, side].tolist()])
        places = (height * depths).long().clamp(max=depths - 1)
        found.append(slices_at(volumes, rows_B2[:, side], places, context, slab))
    return found[0], found[1]
