"""Cutting labelled images into folds by class and by subject: the only place where that is done.

The order within a class is by a keyed hash of the position, not by a random generator, so a split is the same under
every version of every library.
"""

from __future__ import annotations

import hashlib

import numpy as np

from data_shards.vocabulary import Task

CARVE_FOLDS = 5
"""Carving holds out one part in this many of the given labels."""

CARVE_MINIMUM_PER_CLASS = 15
"""Below this many subjects in the smallest class a carved split has fewer than three there, and all folds are used."""


def strata(labels: np.ndarray, task: Task) -> np.ndarray:
    """One stratum per image, int64 ``(N,)``: its class, or the rarest of its labels plus one (0 for none)."""
    labels_NL = labels[:, None] if labels.ndim == 1 else labels
    if task is not Task.multilabel:
        return labels_NL[:, 0].astype(np.int64)
    rarest_first = np.argsort(labels_NL.sum(axis=0), kind="stable")
    positive_NL = labels_NL[:, rarest_first] == 1
    return np.where(positive_NL.any(axis=1), rarest_first[positive_NL.argmax(axis=1)] + 1, 0)


def shuffled(count: int, seed: int, purpose: str) -> np.ndarray:
    """The positions 0 to ``count - 1`` in an order fixed by ``seed`` and ``purpose``."""
    key = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=32).digest()
    ranks = [hashlib.blake2b(position.to_bytes(8, "big"), key=key, digest_size=8).digest() for position in range(count)]
    return np.array(sorted(range(count), key=ranks.__getitem__), dtype=np.int64)


def stratified_folds(strata_N: np.ndarray, folds: int, seed: int, subjects: np.ndarray | None = None) -> np.ndarray:
    """The fold of each image, int64 ``(N,)``: subjects whole, each stratum spread as evenly as whole subjects allow.

    Subjects are dealt greedily, those of the rarest stratum and with the most images first, each to the fold that has
    the fewest images of its stratum and then the fewest images. A subject belongs to the rarest stratum among its
    images.

    Args:
        strata_N: the stratum of each image.
        folds: number of folds.
        seed: fixes the order of subjects of equal size.
        subjects: the subject of each image; each image is its own when left out.
    """
    subject_N, stratum_S, size_S = _subjects(strata_N, subjects)
    frequency = dict(zip(*np.unique(strata_N, return_counts=True), strict=True))
    order = shuffled(len(stratum_S), seed, "folds")
    order = order[np.lexsort((-size_S[order], stratum_S[order], [frequency[s] for s in stratum_S[order]]))]
    fold_S = np.zeros(len(stratum_S), dtype=np.int64)
    total_F = np.zeros(folds, dtype=np.int64)
    of_stratum = {stratum: np.zeros(folds, dtype=np.int64) for stratum in frequency}
    for subject in order:
        stratum_F = of_stratum[stratum_S[subject]]
        fold = np.lexsort((np.arange(folds), total_F, stratum_F))[0]
        fold_S[subject] = fold
        stratum_F[fold] += size_S[subject]
        total_F[fold] += size_S[subject]
    return fold_S[subject_N]


def smallest_class(strata_N: np.ndarray, subjects: np.ndarray | None = None) -> int:
    """How many subjects the smallest stratum has; 0 when all of its subjects belong to a rarer one."""
    _, stratum_S, _ = _subjects(strata_N, subjects)
    return min(int((stratum_S == stratum).sum()) for stratum in np.unique(strata_N))


def selection_folds(
    strata_N: np.ndarray, seed: int, subjects: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where to choose hyper-parameters: pairs of training and held-out positions, all within the given labels.

    With at least 15 subjects in the smallest class, one pair: a fifth is carved off. With fewer, a carved split would
    hold one or two images of a class, so every fold of a stratified cross-validation takes its turn: five, or as many
    as the smallest class has subjects. With a single subject in a class nothing can be held out and the list is empty:
    the caller then uses its stated defaults.

    Args:
        strata_N: the stratum of each image.
        seed: fixes the split.
        subjects: the subject of each image, never cut apart; each image is its own when left out.
    """
    smallest = smallest_class(strata_N, subjects)
    if smallest < 2:
        return []
    folds = min(CARVE_FOLDS, smallest)
    fold_N = stratified_folds(strata_N, folds, seed, subjects)
    used = 1 if smallest >= CARVE_MINIMUM_PER_CLASS else folds
    return [(np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)) for fold in range(used)]


def _subjects(strata_N: np.ndarray, subjects: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The subject index of each image ``(N,)``, and each subject's stratum and number of images ``(S,)``."""
    if subjects is None:
        return np.arange(len(strata_N)), strata_N, np.ones(len(strata_N), dtype=np.int64)
    _, subject_N, size_S = np.unique(subjects, return_inverse=True, return_counts=True)
    values, value_N, frequency = np.unique(strata_N, return_inverse=True, return_counts=True)
    stratum_S = np.zeros(len(size_S), dtype=np.int64)
    # Written from the most to the least frequent image, so that the rarest stratum of a subject stays.
    order = np.lexsort((value_N, frequency[value_N]))[::-1]
    stratum_S[subject_N[order]] = values[value_N[order]]
    return subject_N, stratum_S, size_S
