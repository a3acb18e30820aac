"""Cutting labelled images into folds by class and by subject: the only place where that is done."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from data_shards.vocabulary import Task

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""Pairs of training and held-out positions."""

CARVE_FOLDS = 5
"""Carving holds out one part in this many of the given labels."""

SCARCE_CARVE_FOLDS = 3
"""The same below :data:`CARVE_MINIMUM_PER_CLASS`."""

CARVE_MINIMUM_PER_CLASS = 15
"""Below this many subjects in the smallest class a carved split has fewer than three there, and all folds are used."""


def strata(labels: np.ndarray, task: Task) -> np.ndarray:
    """One stratum per image, int64 ``(N,)``: its class, or the rarest of its labels plus one (0 for none).

    Numbers have a single one.
    """
    labels_NL = labels[:, None] if labels.ndim == 1 else labels
    if task is Task.regression:
        return np.zeros(len(labels_NL), np.int64)
    if task is not Task.multilabel:
        return labels_NL[:, 0].astype(np.int64)
    rarest_first = np.argsort(labels_NL.sum(axis=0), kind="stable")
    positive_NL = labels_NL[:, rarest_first] == 1
    return np.where(positive_NL.any(axis=1), rarest_first[positive_NL.argmax(axis=1)] + 1, 0)


def shuffled(count: int, seed: int, purpose: str) -> np.ndarray:
    """The positions 0 to ``count - 1`` in an order fixed by ``seed`` and ``purpose``.

    It is by a keyed hash, not by a random generator, so it is the same under every version of every library.
    """
    key = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=32).digest()
    ranks = [hashlib.blake2b(position.to_bytes(8, "big"), key=key, digest_size=8).digest() for position in range(count)]
    return np.array(sorted(range(count), key=ranks.__getitem__), dtype=np.int64)


def stratified_folds(strata_N: np.ndarray, folds: int, seed: int, subjects: np.ndarray | None = None) -> np.ndarray:
    """The fold of each image, int64 ``(N,)``: subjects whole, each stratum spread as evenly as whole subjects allow.

    scikit-learn's ``StratifiedKFold``, or ``StratifiedGroupKFold`` where a subject has several images, which may be of
    several classes. With fewer images than folds in every class, there are only as many folds as the largest class has
    images; with fewer subjects than folds, as many as there are subjects. A single fold is fold 0.

    Args:
        strata_N: the stratum of each image.
        folds: number of folds.
        seed: fixes the order of images, or of subjects.
        subjects: the subject of each image; each image is its own when left out.
    """
    count = len(strata_N) if subjects is None else len(np.unique(subjects))
    folds = min(folds, count, int(np.unique(strata_N, return_counts=True)[1].max()))
    if folds < 2:
        return np.zeros(len(strata_N), dtype=np.int64)
    repeated = count < len(strata_N)
    cut = (StratifiedGroupKFold if repeated else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    fold_N = np.empty(len(strata_N), dtype=np.int64)
    with warnings.catch_warnings():
        # A class with fewer images than there are folds is in some of them only; the caller knows.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, held_out) in enumerate(cut.split(strata_N, strata_N, subjects if repeated else None)):
            fold_N[held_out] = fold
    return fold_N


def smallest_class(strata_N: np.ndarray, subjects: np.ndarray | None = None) -> int:
    """How many subjects the smallest stratum has; a subject counts for every stratum it has an image of."""
    if subjects is None:
        return int(np.unique(strata_N, return_counts=True)[1].min())
    return min(len(np.unique(subjects[strata_N == stratum])) for stratum in np.unique(strata_N))


def cross_folds(
    strata_N: np.ndarray, seed: int, subjects: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A stratified cross-validation in five folds, or as many as the smallest class has subjects.

    Arguments and what is left out as for :func:`selection_folds`.
    """
    return _pairs(strata_N, min(CARVE_FOLDS, smallest_class(strata_N, subjects)), seed, subjects)


def selection_folds(
    strata_N: np.ndarray, seed: int, subjects: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where to choose hyper-parameters: pairs of training and held-out positions, all within the given labels.

    With at least 15 subjects in the smallest class, one pair: a fifth is carved off. With fewer, a carved split would
    hold one or two images of a class, so every fold of a stratified cross-validation takes its turn: five, or as many
    as the smallest class has subjects. A fold whose training part lacks a class, because whole subjects could not be
    dealt otherwise, is left out. With a single subject in a class nothing can be held out and the list is empty: the
    caller then uses its stated defaults.

    Args:
        strata_N: the stratum of each image.
        seed: fixes the split.
        subjects: the subject of each image, never cut apart; each image is its own when left out.
    """
    smallest = smallest_class(strata_N, subjects)
    if smallest >= CARVE_MINIMUM_PER_CLASS:
        return carved(strata_N, seed, subjects)
    return _pairs(strata_N, min(CARVE_FOLDS, smallest), seed, subjects)


def carved(strata_N: np.ndarray, seed: int, subjects: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """One pair of training and held-out positions, for choices that are too dear for every fold in turn.

    A fifth is carved off, or a third with fewer than 15 subjects in the smallest class, of whom a fifth would be one or
    two. The list is empty with a single subject in a class. Arguments as for :func:`selection_folds`.
    """
    smallest = smallest_class(strata_N, subjects)
    parts = CARVE_FOLDS if smallest >= CARVE_MINIMUM_PER_CLASS else min(SCARCE_CARVE_FOLDS, smallest)
    # Of the parts that can be carved off, the first of those that hold the most classes.
    return sorted(_pairs(strata_N, parts, seed, subjects), key=lambda pair: -len(np.unique(strata_N[pair[1]])))[:1]


def _pairs(
    strata_N: np.ndarray, folds: int, seed: int, subjects: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out positions of every fold whose training part has every class."""
    if folds < 2:
        return []
    fold_N = stratified_folds(strata_N, folds, seed, subjects)
    pairs = [(np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)) for fold in range(folds)]
    classes = len(np.unique(strata_N))
    return [pair for pair in pairs if len(pair[1]) and len(np.unique(strata_N[pair[0]])) == classes]
