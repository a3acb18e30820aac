"""A keyed permutation of range(N) whose every position is computed on its own, in O(1) memory."""

from __future__ import annotations

import hashlib
import math

import numpy as np

# Four rounds are pseudorandom on a large domain (Luby and Rackoff 1988), eight leave a margin. On a domain of a few
# elements many more are needed before every permutation is equally likely; the chi-square test says how many.
_ROUNDS = 8
_ROUNDS_SMALL = 24
_SMALL = 1 << 10
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Permutation:
    """A pseudorandom permutation of ``range(size)``, the same for the same key everywhere.

    The generalised Feistel cipher with cycle walking of Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002: a number below ``a * b`` is split into digits of base ``a`` and ``b``; each round adds a keyed
    function of one digit to the other, modulo its base; a result outside ``range(size)`` is put in again. With ``a =
    ceil(sqrt(size))`` and ``b = ceil(size / a)`` fewer than ``a`` numbers are outside, so that hardly any position
    walks more than once. The round function multiplies, folds and multiplies again by the constants of the SplitMix64
    finalizer (Steele, Lea and Flood 2014).

    Args:
        size: how many positions, up to 2**62.
        key: what the order depends on, such as seed, dataset and epoch.
    """

    def __init__(self, size: int, *key: int | str) -> None:
        if not 0 <= size <= 1 << 62:
            raise ValueError(f"a permutation of {size} positions; expected 0 to 2**62")
        self.size = size
        self._left = max(1, math.isqrt(max(0, size - 1)) + 1)
        self._right = max(1, -(-size // self._left))
        self._keys = _round_keys(key, _ROUNDS if size >= _SMALL else _ROUNDS_SMALL)

    def __len__(self) -> int:
        return self.size

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Where each position goes.

        Args:
            positions: integers in ``range(size)``, any shape.

        Returns:
            int64 of the same shape; over all positions every number of ``range(size)`` occurs once.

        Raises:
            IndexError: a position is outside.
        """
        asked = np.asarray(positions)
        if asked.size and not (asked.min() >= 0 and asked.max() < self.size):
            raise IndexError(f"positions outside range({self.size})")
        numbers = self._encrypt(asked.astype(np.uint64).ravel())
        outside = np.flatnonzero(numbers >= self.size)
        while outside.size:
            numbers[outside] = self._encrypt(numbers[outside])
            outside = outside[numbers[outside] >= self.size]
        return numbers.astype(np.int64).reshape(asked.shape)

    def _encrypt(self, numbers: np.ndarray) -> np.ndarray:
        left_base, right_base = np.uint64(self._left), np.uint64(self._right)
        left, right = np.divmod(numbers, right_base)
        for turn, key in enumerate(self._keys):
            if turn % 2 == 0:
                left = (left + _below(right, key, left_base)) % left_base
            else:
                right = (right + _below(left, key, right_base)) % right_base
        return left * right_base + right


def _round_keys(key: tuple[int | str, ...], rounds: int) -> np.ndarray:
    """One 64-bit key per round; the parts of ``key`` are kept apart, so ("a", 12) is not ("a1", 2)."""
    stream = hashlib.shake_256(repr(key).encode()).digest(8 * rounds)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def _below(digits: np.ndarray, key: np.uint64, base: np.uint64) -> np.ndarray:
    """A keyed pseudorandom number in ``range(base)`` for each digit (bases are below 2**32)."""
    mixed = digits + key
    mixed *= _MULTIPLIERS[0]
    mixed ^= mixed >> _HALF
    mixed *= _MULTIPLIERS[1]
    mixed >>= _HALF
    mixed *= base
    mixed >>= _HALF
    return mixed
