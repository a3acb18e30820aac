"""How unsure a classifier is, and what of it its members disagree about.

Shape suffixes: S members of an ensemble, N cases, C classes, L labels or numbers.

The entropy of the mean probabilities is what an ensemble does not know; the mean entropy of its members is what each of
them holds to be undecided; the difference is the mutual information of answer and member, which is what they disagree
about (Houlsby et al., Bayesian active learning for classification and preference learning, 2011, eq. 1; Depeweg et al.,
Decomposition of uncertainty, ICML 2018). Members are the models of seeds or folds, or draws of dropout.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import xlogy

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import CLASSIFICATION


def entropy(probabilities: np.ndarray, task: Task, *, normalised: bool = False) -> np.ndarray:
    """Entropy of predicted probabilities in nats, the mean over several labels.

    Args:
        probabilities: ``(..., C)`` of classes, which add up to 1, or of labels, each by itself.
        task: how they are to be read.
        normalised: divided by the log of the number of classes, of 2 for labels, so in [0, 1].

    Raises:
        DataError: the task has no probabilities, or they are no probabilities.
    """
    p = checked_probabilities(probabilities, task)
    several = task is Task.multilabel
    nats = -(xlogy(p, p) + xlogy(1 - p, 1 - p)).mean(axis=-1) if several else -xlogy(p, p).sum(axis=-1)
    most = math.log(2 if several else p.shape[-1])
    found: np.ndarray = np.clip(nats / most, 0, 1) if normalised else nats
    return found


def predictive_entropy(members_SNC: np.ndarray, task: Task, *, normalised: bool = False) -> np.ndarray:
    """Entropy of the mean of the members, ``(N,)``. Args, raises: as for :func:`entropy`."""
    return entropy(np.mean(members_SNC, axis=0), task, normalised=normalised)


def expected_entropy(members_SNC: np.ndarray, task: Task, *, normalised: bool = False) -> np.ndarray:
    """Mean of the entropies of the members, ``(N,)``. Args, raises: as for :func:`entropy`."""
    found: np.ndarray = entropy(members_SNC, task, normalised=normalised).mean(axis=0)
    return found


def mutual_information(members_SNC: np.ndarray, task: Task, *, normalised: bool = False) -> np.ndarray:
    """What the members disagree about, ``(N,)``: :func:`predictive_entropy` less :func:`expected_entropy`.

    Args: as for :func:`entropy`.

    Raises:
        DataError: there is a single member, whose agreement with itself says nothing; or as for :func:`entropy`.
    """
    _several(members_SNC)
    both = predictive_entropy(members_SNC, task, normalised=normalised)
    found: np.ndarray = np.maximum(both - expected_entropy(members_SNC, task, normalised=normalised), 0)
    return found


def deviation(members_SNL: np.ndarray) -> np.ndarray:
    """Standard deviation of a number over the members, ``(N, L)`` in its units.

    It is how far they disagree, not how far they are off: for that see :meth:`Conformal.intervals`.

    Raises:
        DataError: there is a single member.
    """
    _several(members_SNL)
    found: np.ndarray = np.std(members_SNL, axis=0, ddof=1)
    return found


def _several(members: np.ndarray) -> None:
    if len(members) < 2:
        raise DataError(f"{len(members)} member shows no disagreement, expected at least two")


def checked_probabilities(probabilities: np.ndarray, task: Task) -> np.ndarray:
    """As float64.

    Raises:
        DataError: the task has no probabilities, or they are none.
    """
    found = np.asarray(probabilities, np.float64)
    if task not in CLASSIFICATION:
        raise DataError(f"a {task.name} task has no probabilities")
    if not ((found >= 0) & (found <= 1 + 1e-9)).all():
        raise DataError("probabilities are not between 0 and 1")
    if task is not Task.multilabel and not np.allclose(found.sum(axis=-1), 1, atol=1e-4):
        raise DataError("probabilities of classes do not add up to 1")
    return found
