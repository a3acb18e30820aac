"""Which positions of a long sequence are marked, in one bit each, and where the k-th marked one is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_WORD = 64
_WORDS = 8
_BLOCK = _WORD * _WORDS


class Select:
    """The select operation on a bit vector (Jacobson, "Space-efficient static trees and graphs", FOCS 1989).

    One bit per position, and for each block of 512 one count of the marks before it: 1.125 bits per position in all.

    Args:
        marks: bool arrays, one after the other.
    """

    def __init__(self, marks: Iterable[np.ndarray]) -> None:
        packed = _packed(marks)
        packed = np.concatenate([packed, np.zeros(-len(packed) % (_BLOCK // 8), np.uint8)])
        self._words = packed.view("<u8").reshape(-1, _WORDS)
        self._before = np.zeros(len(self._words) + 1, np.int64)
        np.cumsum(np.bitwise_count(self._words).sum(axis=1, dtype=np.int64), out=self._before[1:])

    def __len__(self) -> int:
        """How many positions are marked."""
        return int(self._before[-1])

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self._words.nbytes + self._before.nbytes

    def __call__(self, ranks: np.ndarray) -> np.ndarray:
        """The positions of the marks number ``ranks``, counted from 0.

        Args:
            ranks: integers in ``range(len(self))``, shape (B,).

        Returns:
            int64, shape (B,).

        Raises:
            IndexError: there are not so many marks.
        """
        ranks = np.asarray(ranks, np.int64)
        if ranks.size and not (ranks.min() >= 0 and ranks.max() < len(self)):
            raise IndexError(f"marks outside range({len(self)})")
        block_B = np.searchsorted(self._before, ranks, side="right") - 1
        words_BW = self._words[block_B]
        word_B, rest_B = _place(np.bitwise_count(words_BW), ranks - self._before[block_B])
        words_B = words_BW[np.arange(len(ranks)), word_B]
        bits_BX = np.unpackbits(words_B.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        bit_B, _ = _place(bits_BX, rest_B)
        return block_B * _BLOCK + word_B * _WORD + bit_B

    def before(self, position: int) -> int:
        """How many marks there are before ``position``: the rank operation, the inverse of the call."""
        block, bit = divmod(position, _BLOCK)
        if block == len(self._words):
            return len(self)
        bits = np.unpackbits(self._words[block].view(np.uint8), count=bit, bitorder="little")
        return int(self._before[block]) + int(bits.sum())


def _place(counts_BX: np.ndarray, rank_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The column in which each row's mark ``rank_B`` lies, and its number within that column."""
    ends_BX = np.cumsum(counts_BX, axis=1, dtype=np.int64)
    column_B = (ends_BX <= rank_B[:, None]).sum(axis=1)
    rows = np.arange(len(rank_B))
    return column_B, rank_B - (ends_BX[rows, column_B] - counts_BX[rows, column_B])


def _packed(marks: Iterable[np.ndarray]) -> np.ndarray:
    """All marks as bytes, least significant bit first; no more than one array of them is unpacked at a time."""
    parts: list[np.ndarray] = []
    carry = np.zeros(0, bool)
    for part in marks:
        joined = np.concatenate([carry, part])
        whole = len(joined) // 8 * 8
        parts.append(np.packbits(joined[:whole], bitorder="little"))
        carry = joined[whole:]
    parts.append(np.packbits(carry, bitorder="little"))
    return np.concatenate(parts)
