"""Do maps depend on what the model has learned? They are made again of models that have forgotten it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.classifier.predictor import Predictor
from finetune.explain.asking import maps_of
from finetune.explain.base import CaseMethod
from finetune.explain.intervals import mean_interval
from finetune.explain.randomised import cascade
from finetune.progress import progress

PASSES_BELOW = 0.5
"""The upper end of the interval of the rank correlation, once all weights are randomised, has to be below."""
CASES = 16
"""So many cases are looked at, unless it is said otherwise."""


@dataclass(frozen=True)
class Similarity:
    """How much maps resemble those of the model as it was, once layers are randomised.

    Attributes:
        layer: down to which they are, from the output.
        spearman: rank correlation of the values, the mean over cases.
        low: of its 95 % interval over subjects.
        high: likewise.
        ssim: structural similarity of the maps, each scaled to 0 to 1.
        flat: share of the maps that have become the same everywhere; these count as 0.
    """

    layer: str
    spearman: float
    low: float
    high: float
    ssim: float
    flat: float


@dataclass(frozen=True)
class Sanity:
    """What the check found.

    Attributes:
        rows: one per layer, from the output to the input.
        cases: how many were looked at.
        seed: of the randomisation.
    """

    rows: tuple[Similarity, ...]
    cases: int
    seed: int

    @property
    def passes(self) -> bool:
        """Whether maps of the randomised model are no longer those of the model."""
        return bool(self.rows[-1].high < PASSES_BELOW)

    @property
    def told(self) -> str:
        """In one sentence."""
        last = self.rows[-1]
        if self.cases < 2:
            return "randomisation check: a single case cannot tell whether maps depend on the model; give more"
        verb = "passes" if self.passes else "fails"
        return (
            f"randomisation check {verb}: with all weights shuffled maps correlate by rank {last.spearman:.2f} "
            f"({last.low:.2f} to {last.high:.2f}; {self.cases} cases, below {PASSES_BELOW} is asked for)"
        )

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "passes": self.passes,
            "told": self.told,
            "cases": self.cases,
            "seed": self.seed,
            "rows": [asdict(row) for row in self.rows],
        }


def check_sanity(
    predictor: Predictor, method: CaseMethod, cases: Cases, places: Sequence[int], *, seed: int = 0
) -> Sanity:
    """Compare maps with those of models whose layers are randomised one after the other.

    Args:
        predictor: what is explained.
        method: how.
        cases: of which maps are made.
        places: the class, label or number of each, the same before and after.
        seed: of the randomisation.

    Raises:
        DataError: no map differs from place to place, so there is nothing to compare.
    """
    before = _maps(predictor, method, cases, places)
    if all(_flat(each) for maps in before for each in maps):
        raise DataError(
            f"{cases.name}: no map of method {method.name} differs from place to place; nothing can be compared"
        )
    runs = [cascade(member, seed + number) for number, member in enumerate(predictor.members)]
    subjects = np.arange(len(cases)) if cases.subjects is None else np.asarray(cases.subjects)
    rows = []
    for stage in zip(*runs, strict=True):
        now = replace(predictor, members=tuple(member for _, member in stage))
        after = _maps(now, method, cases, places)
        pairs = [list(zip(*maps, strict=True)) for maps in zip(before, after, strict=True)]
        kept = [[pair for pair in case if not _flat(pair[0])] for case in pairs]
        # A map that was the same everywhere before cannot show a change.
        use = np.array([bool(case) for case in kept])
        ranks = np.array([np.mean([spearman(*pair) for pair in case]) for case in kept if case])
        likeness = [np.mean([ssim(*pair) for pair in case]) for case in kept if case]
        flat = [_flat(pair[1]) for case in kept for pair in case]
        found = mean_interval(ranks, subjects[use], seed=seed)
        low, high = found.low, found.high
        if np.isnan(high):  # equal in all cases; of one subject nothing is known
            several = len(np.unique(subjects[use])) > 1
            low, high = (found.estimate, found.estimate) if several else (-1.0, 1.0)
        rows.append(
            Similarity(
                stage[0][0], found.estimate, float(low), float(high), float(np.mean(likeness)), float(np.mean(flat))
            )
        )
    return Sanity(tuple(rows), len(cases), seed)


def _maps(predictor: Predictor, method: CaseMethod, cases: Cases, places: Sequence[int]) -> list[list[np.ndarray]]:
    view, found = predictor.shown(cases), []
    with progress(len(cases), "cases", "maps") as told:
        for case, place in enumerate(places):
            (said,) = maps_of(predictor, method, cases, case, [place], view)
            found.append([each.values for each in said.maps])
            told.advance(1)
    return found


def _flat(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * max(1.0, float(np.abs(values).max())))


_ROUNDING = 1e-12


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two maps of one shape; 0 where one is the same everywhere."""
    if _flat(one) or _flat(other):
        return 0.0
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def ssim(one: np.ndarray, other: np.ndarray, window: int = 7) -> float:
    """Structural similarity of two maps, each scaled to 0 to 1.

    Wang et al., Image quality assessment, IEEE TIP 2004, eq. 13, in windows with equal weights and the constants
    0.01 and 0.03, where the whole window lies in the map.

    Args:
        one: a map.
        other: of the same shape.
        window: cells along each axis; no more than the shortest axis has.
    """
    from scipy.ndimage import uniform_filter

    first, second = (_scaled(each) for each in (one, other))
    size = min(window, *one.shape)
    mean_1, mean_2 = uniform_filter(first, size), uniform_filter(second, size)
    unbiased = size**one.ndim / max(size**one.ndim - 1, 1)
    var_1 = unbiased * (uniform_filter(first * first, size) - mean_1**2)
    var_2 = unbiased * (uniform_filter(second * second, size) - mean_2**2)
    both = unbiased * (uniform_filter(first * second, size) - mean_1 * mean_2)
    c_1, c_2 = 0.01**2, 0.03**2
    found = ((2 * mean_1 * mean_2 + c_1) * (2 * both + c_2)) / ((mean_1**2 + mean_2**2 + c_1) * (var_1 + var_2 + c_2))
    inner = tuple(slice((size - 1) // 2, length - size // 2) for length in one.shape)
    return float(found[inner].mean())


def _scaled(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    span = np.ptp(values)
    found: np.ndarray = (values - values.min()) / (span if span > 0 else 1.0)
    return found
