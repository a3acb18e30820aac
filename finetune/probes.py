"""What frozen features are worth: a nearest-neighbour and a linear classifier on given arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.logistic import select_logistic

DEFAULT_K = 20
TEMPERATURE = 0.07
_CHUNK = 1024


@dataclass(frozen=True)
class Probe:
    """Probabilities of a probe, ``(N, K)`` with two columns for a binary task, and what it chose."""

    probabilities: np.ndarray
    chosen: dict[str, Any]


def knn_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    task: Task,
    *,
    classes: int,
    k: int = DEFAULT_K,
) -> Probe:
    """Weighted vote of the nearest neighbours by cosine similarity.

    A neighbour votes with weight ``exp(similarity / 0.07)`` (Wu et al., CVPR 2018, section 3.4; as DINO evaluates).

    Args:
        train_features: ``(M, D)``.
        train_labels: ``(M, L)`` class indices, or 0/1 per label.
        test_features: ``(N, D)``.
        task: how the labels are to be read.
        classes: number of classes, or of labels of a multi-label task.
        k: neighbours; clipped to ``M``.

    Raises:
        DataError: there is nothing to compare with, or features contain NaN.
    """
    if not len(train_features) or not np.isfinite(train_features).all() or not np.isfinite(test_features).all():
        raise DataError("kNN: expected at least one training image and finite features")
    votes_MK = train_labels if task is Task.multilabel else train_labels == np.arange(classes)
    votes_MK = votes_MK.astype(np.float64)
    k = min(k, len(train_features))
    train_MD, test_ND = _unit(train_features), _unit(test_features)
    parts = []
    for start in range(0, len(test_ND), _CHUNK):
        similarity_NM = test_ND[start : start + _CHUNK] @ train_MD.T
        # A stable sort: of equally near neighbours the earlier one counts, whatever the library.
        nearest_Nk = np.argsort(-similarity_NM, axis=1, kind="stable")[:, :k]
        near_Nk = np.take_along_axis(similarity_NM, nearest_Nk, axis=1)
        weight_Nk = np.exp((near_Nk - near_Nk[:, :1]) / TEMPERATURE)
        weight_Nk /= weight_Nk.sum(axis=1, keepdims=True)
        parts.append(np.einsum("nk,nkc->nc", weight_Nk, votes_MK[nearest_Nk]))
    return Probe(np.concatenate(parts), {"k": k, "temperature": TEMPERATURE})


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    task: Task,
    *,
    classes: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    refit: np.ndarray | None = None,
) -> Probe:
    """L2-regularised logistic regression, see :func:`finetune.logistic.select_logistic`.

    It is fitted with class-balanced weights; its probabilities are those of the prevalence in ``train_labels``.

    Args:
        train_features: ``(M, D)``.
        train_labels: ``(M, L)``.
        test_features: ``(N, D)``.
        task: how the labels are to be read.
        classes: number of classes, or of labels of a multi-label task.
        folds: where the strength is chosen.
        refit: positions of the final fit; all of them when left out.
    """
    selection = select_logistic(
        train_features, train_labels, task, classes=classes, folds=folds, balanced=True, refit=refit
    )
    chosen = {"strength": selection.strength, "held_out_loss": selection.held_out_loss}
    return Probe(selection.predict_proba(test_features), chosen)


def _unit(features_ND: np.ndarray) -> np.ndarray:
    features_ND = features_ND.astype(np.float64)
    norm_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    unit_ND: np.ndarray = features_ND / np.maximum(norm_N1, np.finfo(np.float64).tiny)
    return unit_ND
