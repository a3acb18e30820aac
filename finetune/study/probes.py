"""What frozen features are worth: a nearest-neighbour and a linear classifier on given arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.support.errors import DataError
from finetune.fit.linear import select_linear
from finetune.splits import Folds
from finetune.targets import Target

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
    target: Target,
    *,
    k: int = DEFAULT_K,
) -> Probe:
    """Weighted vote of the nearest neighbours by cosine similarity.

    A neighbour votes with weight ``exp(similarity / 0.07)`` (Wu et al., CVPR 2018, section 3.4; as DINO evaluates).

    Args:
        train_features: ``(M, D)``.
        train_labels: ``(M, L)`` class indices, or 0/1 per label.
        test_features: ``(N, D)``.
        target: what they are labels of; of numbers the mean is taken.
        k: neighbours; clipped to ``M``.

    Raises:
        DataError: there is nothing to compare with, or features contain NaN.
    """
    if not len(train_features) or not np.isfinite(train_features).all() or not np.isfinite(test_features).all():
        raise DataError("kNN: expected at least one training image and finite features")
    one = target.classifies and train_labels.shape[1] == 1 and len(target.classes) > 1
    votes_MK = (train_labels == np.arange(len(target.classes)) if one else train_labels).astype(np.float64)
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
    target: Target,
    *,
    folds: Folds,
    refit: np.ndarray | None = None,
) -> Probe:
    """The L2-penalised linear optimum, see :func:`finetune.fit.linear.select_linear`.

    It is fitted with class-balanced weights; its probabilities are those of the prevalence in ``train_labels``.

    Args:
        train_features: ``(M, D)``.
        train_labels: ``(M, L)``.
        test_features: ``(N, D)``.
        target: what they are labels of.
        folds: where the strength is chosen.
        refit: positions of the final fit; all of them when left out.
    """
    target = target.fitted_to(train_labels)
    selected = select_linear(
        {_READ: train_features}, train_labels, target, folds, balanced=True, candidates=[_READ], refit=refit
    )
    probabilities = target.probabilities(selected.fit.log_scores({_READ: test_features}))
    return Probe(probabilities, {"strength": selected.strengths[_READ], "held_out_loss": selected.held_out_loss})


_READ = "features"


def _unit(features_ND: np.ndarray) -> np.ndarray:
    features_ND = features_ND.astype(np.float64)
    norm_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    unit_ND: np.ndarray = features_ND / np.maximum(norm_N1, np.finfo(np.float64).tiny)
    return unit_ND
