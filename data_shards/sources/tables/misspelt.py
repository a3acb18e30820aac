"""Names that are nearly another name and rare beside it: what a slip of the hand makes of a label."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from data_shards.sources.tables.cells import spelled

_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivx]+")
_RARE = 10
"""A name is rare beside another that is so many times as common, and where it occurs once."""
_RATIO = 0.9
_LEAST_LETTERS, _LEAST_EXCHANGED = 3, 4
"""Of the longer word; more where a letter stands for another, for abbreviations differ by one: LAD, LAO."""


def misspelt(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Pairs of a rare name and the commonest one that it may be a misspelling of.

    Names that differ by numbers alone are names of their own (grade 1 and grade 2, T1 and T2, type II and type III),
    however rare one is.

    Args:
        counts: how often each name occurs.
    """
    for rare, few in counts.items():
        common = [name for name, many in counts.items() if few < many and (few == 1 or _RARE * few <= many)]
        near = [name for name in common if _near(rare, name)]
        if near:
            yield rare, max(near, key=counts.__getitem__)


def _near(one: str, other: str) -> bool:
    """Whether one word, or the blanks between words, is all that two names differ by, and that by little."""
    first, second = spelled(one), spelled(other)
    if _DIGITS.findall(first) != _DIGITS.findall(second):
        return False
    words, others = _LETTERS.findall(first), _LETTERS.findall(second)
    if words == others:
        return False  # they differ by signs, which may be anything, or are told as spellings of one already
    if len(words) != len(others):
        return "".join(words) == "".join(others)
    differing = [pair for pair in zip(words, others, strict=True) if pair[0] != pair[1]]
    return len(differing) == 1 and _slip(*differing[0])


def _slip(one: str, other: str) -> bool:
    """Whether a letter too many, too few, exchanged, or two that changed places make a word of another."""
    short, long = sorted((one, other), key=len)
    if len(long) < _LEAST_LETTERS or (_ROMAN.fullmatch(one) and _ROMAN.fullmatch(other)):
        return False
    if len(short) < len(long):
        edited = any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
    else:
        off = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        swapped = (
            len(off) == 2 and off[1] - off[0] == 1 and one[off[0]] == other[off[1]] and one[off[1]] == other[off[0]]
        )
        edited = swapped or (len(off) == 1 and len(long) >= _LEAST_EXCHANGED)
    return edited or difflib.SequenceMatcher(None, one, other).ratio() >= _RATIO
