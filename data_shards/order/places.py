"""Where a part of an image is taken: random places that are a pure function of seed, dataset, epoch and showing."""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


Key = tuple[int | str, ...]
"""What random numbers depend on, such as seed, dataset and epoch."""


def places(key: Key, numbers_B: np.ndarray, room_BA: np.ndarray) -> np.ndarray:
    """One place for each number, uniform along every axis.

    Args:
        key: what the places depend on besides.
        numbers_B: integers from 0 on.
        room_BA: how many places each has along each axis, at least 1.

    Returns:
        int64, the shape of ``room_BA``, at least 0 and below it.
    """
    return below(shares(key, numbers_B, room_BA.shape[1]), room_BA)


def shares(key: Key, numbers_B: np.ndarray, count: int) -> np.ndarray:
    """So many random numbers from 0 to below 1 for each number.

    Each is a hash of its address alone, the generator of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) begun at the
    hash of the number: nothing is stepped, so the numbers of a showing are the same in any batch, on any rank and
    after a resumption.

    Args:
        key: what they depend on besides.
        numbers_B: integers from 0 on.
        count: of random numbers.

    Returns:
        float64, shape (B, count).
    """
    word = np.frombuffer(hashlib.shake_256(repr(key).encode()).digest(8), "<u8")[0]
    start_B = _mixed(_mixed(numbers_B.astype(np.uint64) + word) ^ word)
    words_BK = _mixed(start_B[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (words_BK >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(share: np.ndarray, room: np.ndarray | int) -> np.ndarray:
    """Shares from 0 to below 1 as integers from 0 to below ``room``."""
    # Rounding could carry a share next to 1 to the end of a large room.
    found: np.ndarray = np.minimum((share * room).astype(np.int64), np.asarray(room) - 1)
    return found


def _mixed(words: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64."""
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLIERS[0]
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLIERS[1]
    return words ^ (words >> np.uint64(31))
