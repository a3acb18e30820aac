"""Slices of one subject with those between them, and slices of two subjects at matched height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


def slices_at(volumes: Sequence[Tensor], rows: Tensor, places: Tensor, context: int = 0) -> Tensor:
    """Slices of volumes ``C,D,H,W``, with the slices around each along the channels; the end goes on outside.

    Args:
        volumes: of one size across D.
        rows: of which volume, ``(B,)``.
        places: which slice, ``(B,)``.
        context: how many on either side.
    """
    found = []
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        depth = volumes[row].shape[1]
        around = [min(max(place + step, 0), depth - 1) for step in range(-context, context + 1)]
        found.append(volumes[row][:, around].transpose(0, 1).flatten(0, 1))
    return torch.stack(found)


def triples(
    volumes: Sequence[Tensor], count: int, gaps: Sequence[int], generator: torch.Generator, context: int = 0
) -> Triples:
    """Random triples of one subject each: two slices ``2 g`` apart and one between them.

    The one between is the middle one half of the time, which is what fusion asks for, else any.

    Args:
        volumes: ``C,D,H,W``, one per subject.
        count: how many triples.
        gaps: ``g`` is one of them; those that a volume is too short for are not drawn of it.
        generator: random numbers.
        context: slices around ``a`` and ``b``.
    """
    rows = torch.randint(len(volumes), (count,), generator=generator)
    first, second, middle, times = [], [], [], []
    for row in rows.tolist():
        depth = volumes[row].shape[1]
        fitting = [gap for gap in gaps if 2 * gap < depth]
        gap = fitting[int(torch.randint(len(fitting), (), generator=generator))]
        start = int(torch.randint(depth - 2 * gap, (), generator=generator))
        step = gap
        if torch.rand((), generator=generator) < 0.5:
            step = 1 + int(torch.randint(2 * gap - 1, (), generator=generator))
        first.append(start)
        second.append(start + 2 * gap)
        middle.append(start + step)
        times.append(step / (2 * gap))
    a, b = (slices_at(volumes, rows, torch.tensor(places), context) for places in (first, second))
    return Triples(a, b, slices_at(volumes, rows, torch.tensor(middle)), torch.tensor(times))


def pairs(volumes: Sequence[Tensor], count: int, generator: torch.Generator, context: int = 0) -> tuple[Tensor, Tensor]:
    """Random slices of two subjects at the same share of the depth of each.

    Args:
        volumes: two at least.
        count: how many pairs.
        generator: random numbers.
        context: slices around each.
    """
    rows = torch.stack([torch.randperm(len(volumes), generator=generator)[:2] for _ in range(count)])
    height = torch.rand(count, generator=generator)
    found = []
    for side in range(2):
        depths = torch.tensor([volumes[row].shape[1] for row in rows[:, side].tolist()])
        places = (height * depths).long().clamp(max=depths - 1)
        found.append(slices_at(volumes, rows[:, side], places, context))
    return found[0], found[1]
