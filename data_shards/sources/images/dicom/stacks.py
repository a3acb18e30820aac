"""Which planes make one volume: slices on one grid, and no two of them at one place."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from data_shards.sources.images.dicom.geometry import SAME_PLACE_MM, heights
from data_shards.sources.images.dicom.plane import Plane

# For each trait its value in each plane.
Traits = Sequence[Sequence[Hashable]]

# Direction cosines and pixel spacing of slices of one stack agree to rounding.
_PARALLEL = 1e-3
_SPACING_TOLERANCE = 1e-3


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


def split_repeats(planes: Sequence[Plane]) -> list[list[int]] | None:
    """Split planes that lie at the same places into volumes by what tells them apart.

    A trait (echo time, time point, b-value, ...; see :mod:`~data_shards.sources.images.dicom.plane`) splits a stack
    when each of its values covers all places; traits are asked in turn. What this leaves, such as a last time point
    that was broken off, is split at once by all traits that several slices share.

    Returns:
        Positions of the planes of each volume, or None when planes at one place cannot be told apart.
    """
    found = heights(planes)
    if found is None:
        return [[position] for position in range(len(planes))]
    order = np.argsort(found, kind="stable")
    places = np.empty(len(planes), dtype=np.int64)
    places[order] = np.concatenate([[0], np.cumsum(np.diff(found[order]) > SAME_PLACE_MM)])
    traits = list(zip(*(plane.traits for plane in planes), strict=True))
    return _split(traits, places, list(range(len(planes))), 0)


def _split(traits: Traits, places: np.ndarray, members: list[int], first: int) -> list[list[int]] | None:
    """Volumes of the members, split by the traits from ``first`` on."""
    if _distinct(places, members):
        return [members]
    covered = set(places[members].tolist())
    for number in range(first, len(traits)):
        parts = _parts(members, traits[number])
        if len(parts) > 1 and all(set(places[part].tolist()) == covered for part in parts):
            volumes: list[list[int]] = []
            for part in parts:
                split = _split(traits, places, part, number + 1)
                if split is None:
                    return None
                volumes += split
            return volumes
    steady = [trait for trait in traits if 2 * len(_parts(members, trait)) <= len(members)]
    parts = _parts(members, list(zip(*steady, strict=True))) if steady else [members]
    return parts if all(_distinct(places, part) for part in parts) else None


def _parts(members: list[int], trait: Sequence[Hashable]) -> list[list[int]]:
    parts: dict[Hashable, list[int]] = {}
    for member in members:
        parts.setdefault(trait[member], []).append(member)
    return list(parts.values())


def _distinct(places: np.ndarray, members: list[int]) -> bool:
    return len(np.unique(places[members])) == len(members)
