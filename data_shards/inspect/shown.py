"""Images as a person looks at them: 8 bits under the rule by which a network reads them."""

from __future__ import annotations

import numpy as np

from data_shards.intensity import Bytes, Foreground, Percentiles, Rule, Windows
from data_shards.prepare.intensity import Ends, percentiles, to_8_bits


def shown(pixels: np.ndarray, rule: Rule | None) -> list[np.ndarray]:
    """One picture, or one for each window of a rule of several.

    Args:
        pixels: finite, of any shape.
        rule: how values are read; None leaves them as they are.

    Returns:
        uint8 of the same shape, but for values that stay as they are.
    """
    if rule is None or isinstance(rule, Bytes):
        return [pixels]
    return [to_8_bits(pixels, ends) for ends in _ends(pixels, rule)]


def titles(rule: Rule | None) -> list[str]:
    """What each of these is called; nothing where there is one."""
    if isinstance(rule, Windows) and len(rule.windows) > 1:
        return [f", {window.words}" for window in rule.windows]
    return [""]


def _ends(pixels: np.ndarray, rule: Rule) -> list[Ends]:
    """The values that are black and white."""
    if isinstance(rule, Windows):
        return [(window.low, window.high) for window in rule.windows]
    assert not isinstance(rule, Bytes)
    counted_N = _foreground(pixels, rule.foreground)
    if isinstance(rule, Percentiles):
        return [percentiles(counted_N, (rule.low, rule.high))]
    mean, std = float(counted_N.mean(dtype=np.float64)), float(counted_N.std(dtype=np.float64))
    return [(mean - rule.limit * std, mean + rule.limit * std)]


def _foreground(pixels: np.ndarray, foreground: Foreground) -> np.ndarray:
    values_N = pixels.reshape(-1)
    if foreground == "all":
        return values_N
    limit = values_N.mean(dtype=np.float64) if foreground == "mean" else foreground
    found = values_N[values_N > limit]
    return found if found.size else values_N
