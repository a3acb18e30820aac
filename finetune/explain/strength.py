"""How much there is to see: whether a case and its map tell of anything, and where the colours of a map end.

A picture whose colours end at the highest value of its map paints noise as brightly as a finding. Here they end no
lower than the highest value would be if the map told of :data:`NEAR` log odds, so that a map of less is as pale as it
is empty.

Shape suffix: C classes or labels.
"""

from __future__ import annotations

import math

import numpy as np

from data_shards.vocabulary import Task
from finetune.targets import Target

NEAR = 0.1
"""Log odds of which less is next to nothing: from 0.5 it moves a probability by less than 0.025."""
GUESSES = "what the classifier says is near guessing"
FAINT = f"the map tells of less than {NEAR:g} log odds"
_TOP_PERCENT = 99.5
"""What is above counts as the top of the scale, lest one voxel hide all others."""


def guesses(target: Target, evidence: float) -> bool:
    """Whether log odds are near those of an answer that is drawn among the classes; False of a regression.

    Args:
        target: what is told of a case.
        evidence: log odds of one class or label.
    """
    others = 1 if target.task is Task.multilabel else len(target.classes) - 1
    return target.classifies and abs(evidence + math.log(max(others, 1))) < NEAR


def scale_of(values: np.ndarray, amount: float | None) -> float:
    """The value, and its negative, at which the colours of a map end.

    Args:
        values: of the map, at every voxel.
        amount: of log odds that it tells of; None where it is of something else, which has a scale of its own.
    """
    size = np.abs(values)
    top = float(np.percentile(size, _TOP_PERCENT)) or float(size.max()) or 1.0
    return max(top, float(size.max()) * NEAR / amount) if amount else top


def notes_on(target: Target, evidence: float, amount: float | None) -> str:
    """What has to be known of one map, in words; empty where it is of something."""
    faint = target.classifies and amount is not None and amount < NEAR
    return "; ".join([GUESSES] * guesses(target, evidence) + [FAINT] * faint)
