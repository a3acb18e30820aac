"""Which planes make one volume: slices on one grid, and no two of them at one place.

What makes slices at one place different is never taken for depth: phases of a heart, time points, echoes and the like
become volumes, or planes, of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_shards.sources.images.dicom.geometry import heights, in_mm, places
from data_shards.sources.images.dicom.plane import Plane
from data_shards.sources.images.dicom.traits import NUMBER, TRAITS, as_order, name_of

# Directions of slices of one stack agree to rounding, in radians: a tenth of a degree. So do pixel spacings.
_PARALLEL = 2e-3
_SPACING_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Part:
    """One volume, or one plane, of slices that lie at the same places as others.

    Attributes:
        members: positions of its planes.
        differs: names of the traits in which it differs from the others; empty when there are no others.
        first: whether it comes first in all of them that are time.
    """

    members: list[int]
    differs: tuple[str, ...] = ()
    first: bool = True


def by_grid(planes: Sequence[Plane]) -> list[list[int]]:
    """Positions of planes that are parallel and equally spaced; those without a place in the patient are parallel."""
    groups: list[tuple[Plane, list[int]]] = []
    for position, plane in enumerate(planes):
        for first, group in groups:
            if _same_grid(first, plane):
                group.append(position)
                break
        else:
            groups.append((plane, [position]))
    return [group for _, group in groups]


def _same_grid(one: Plane, other: Plane) -> bool:
    if one.placed != other.placed or (one.spacing is None) != (other.spacing is None):
        return False
    if one.spacing and other.spacing and not np.allclose(one.spacing, other.spacing, rtol=_SPACING_TOLERANCE, atol=0):
        return False
    if not one.placed or one.orientation is None or other.orientation is None:
        return True
    return bool(np.abs(np.subtract(one.orientation, other.orientation)).max() < _PARALLEL)


def split_repeats(planes: Sequence[Plane]) -> list[Part] | None:
    """Split planes that lie at the same places into volumes by what tells them apart.

    A trait (echo time, time point, b-value, ...; see :mod:`~data_shards.sources.images.dicom.traits`) splits a stack
    when each of its values covers all places; traits are asked in turn. Where all places are covered equally often,
    the order of a time at each place splits too: trigger times differ from slice to slice when the heart beats faster,
    but the first at each place are one phase. What this leaves, such as a last time point that was broken off, is
    split at once by all traits that several slices share.

    Where no place is known, instance numbers stand in for it, which count time points as they count slices: then
    slices of one volume must agree in every trait that slices of a volume share.

    Returns:
        The volumes, or None when planes at one place cannot be told apart.
    """
    found = heights(planes)
    if found is None:
        return [Part([position]) for position in range(len(planes))]
    everything = list(range(len(planes)))
    if in_mm(planes) or len(planes) == 1:
        return _split(planes, places(found), everything, 0)
    parts = _unplaced(planes, everything)
    if len(parts) == 1 and any(plane.timed for plane in planes) and len(np.unique(found)) == len(found):
        return [Part([position], (NUMBER,), rank == 0) for rank, position in enumerate(np.argsort(found).tolist())]
    volumes: list[Part] = []
    for part in parts:
        inner = _split([planes[member] for member in part.members], places(found[part.members]), None, 0)
        if inner is None:
            return None
        volumes += _inside(part, [replace(one, members=[part.members[m] for m in one.members]) for one in inner])
    return volumes


def _unplaced(planes: Sequence[Plane], members: list[int]) -> list[Part]:
    """Split by every trait that slices of one volume share."""
    parts = [Part(members)]
    for trait in range(len(planes[0].traits)):
        if trait < len(TRAITS) and TRAITS[trait].steady:
            parts = [inner for part in parts for inner in _inside(part, _by_value(planes, part.members, trait))]
    return parts


def _split(planes: Sequence[Plane], where: np.ndarray, members: list[int] | None, first: int) -> list[Part] | None:
    """Volumes of the members, all planes when None, split by the traits from ``first`` on."""
    members = list(range(len(planes))) if members is None else members
    if _distinct(where, members):
        return [Part(members)]
    covered = set(where[members].tolist())
    count = min(len(plane.traits) for plane in planes)
    for trait in range(first, count):
        parts = _by_value(planes, members, trait)
        if len(parts) > 1 and all(set(where[part.members].tolist()) == covered for part in parts):
            return _split_each(planes, where, parts, trait + 1)
    for trait in range(first, count):
        ranked = trait < len(TRAITS) and TRAITS[trait].ranked
        order = _values(planes, members, trait) if ranked else None
        if order is not None and (parts := _by_rank(where, members, order, name_of(trait))):
            return _split_each(planes, where, parts, trait + 1)
    together = _together(planes, members, count)
    if all(_distinct(where, part.members) for part in together):
        return together
    numbers = [planes[member].number for member in members]
    # Every slice has a number of its own, so those at one place were counted one after the other.
    if None not in numbers and len(set(numbers)) == len(numbers):
        return _by_rank(where, members, np.array(numbers, np.float64), NUMBER) or None
    return None


def _split_each(planes: Sequence[Plane], where: np.ndarray, parts: Iterable[Part], trait: int) -> list[Part] | None:
    volumes: list[Part] = []
    for part in parts:
        inner = _split(planes, where, part.members, trait)
        if inner is None:
            return None
        volumes += _inside(part, inner)
    return volumes


def _inside(part: Part, inner: Iterable[Part]) -> list[Part]:
    """The parts of a part, which differ from others in what it differs in too."""
    return [Part(each.members, (*part.differs, *each.differs), part.first and each.first) for each in inner]


def _by_value(planes: Sequence[Plane], members: list[int], trait: int) -> list[Part]:
    """One part for each value of a trait, in the order of members; by time, the smallest value is the first."""
    parts: dict[str, list[int]] = {}
    for member in members:
        parts.setdefault(planes[member].traits[trait], []).append(member)
    if len(parts) == 1:
        return [Part(members)]
    differs = (name_of(trait),)
    if trait >= len(TRAITS) or not TRAITS[trait].time:
        return [Part(part, differs) for part in parts.values()]
    ranks = _ranks(trait, parts)
    earliest = min(parts, key=ranks.__getitem__)
    return [Part(part, differs, value == earliest) for value, part in parts.items()]


def _by_rank(where: np.ndarray, members: list[int], order: np.ndarray, name: str) -> list[Part]:
    """One part for each rank in the order at each place; none where places are covered unequally often, or at ties."""
    ranked: dict[int, list[tuple[float, int]]] = {}
    for member, value in zip(members, order.tolist(), strict=True):
        ranked.setdefault(int(where[member]), []).append((value, member))
    times = {len(here) for here in ranked.values()}
    if len(times) > 1 or any(len({value for value, _ in here}) < len(here) for here in ranked.values()):
        return []
    columns = zip(*(sorted(here) for here in ranked.values()), strict=True)
    return [Part(sorted(member for _, member in column), (name,), not rank) for rank, column in enumerate(columns)]


def _values(planes: Sequence[Plane], members: list[int], trait: int) -> np.ndarray | None:
    """A trait of the members as numbers; None when one of them has none."""
    found = as_order(name_of(trait), [planes[member].traits[trait] for member in members])
    return None if None in found else np.array(found, np.float64)


def _ranks(trait: int, values: Iterable[str]) -> dict[str, tuple[bool, float]]:
    """What orders the values of a time; those that are no numbers come last."""
    values = list(dict.fromkeys(values))
    numbers = as_order(name_of(trait), values)
    return {value: (number is None, number or 0.0) for value, number in zip(values, numbers, strict=True)}


def _together(planes: Sequence[Plane], members: list[int], count: int) -> list[Part]:
    """Split at once by all traits of which several slices share each value."""
    values = {trait: {planes[member].traits[trait] for member in members} for trait in range(count)}
    shared = [trait for trait, found in values.items() if 1 < len(found) <= len(members) / 2]
    parts: dict[tuple[str, ...], list[int]] = {}
    for member in members:
        parts.setdefault(tuple(planes[member].traits[trait] for trait in shared), []).append(member)
    names = tuple(name_of(trait) for trait in shared)
    ranks = {trait: _ranks(trait, values[trait]) for trait in shared if trait < len(TRAITS) and TRAITS[trait].time}

    def time(key: tuple[str, ...]) -> list[tuple[bool, float]]:
        return [ranks[trait][value] for trait, value in zip(shared, key, strict=True) if trait in ranks]

    earliest: dict[tuple[str, ...], tuple[str, ...]] = {}  # by the values of what is no time, as each echo has a first
    others = {key: tuple(v for trait, v in zip(shared, key, strict=True) if trait not in ranks) for key in parts}
    for key in sorted(parts, key=time):
        earliest.setdefault(others[key], key)
    return [Part(part, names, key == earliest[others[key]]) for key, part in parts.items()]


def _distinct(where: np.ndarray, members: list[int]) -> bool:
    return len(np.unique(where[members])) == len(members)
