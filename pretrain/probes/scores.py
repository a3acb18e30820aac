"""Two classifiers on frozen embeddings, and what they are worth on others; all of it scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_TEMPERATURE = 0.07
_STRENGTH = 0.1
"""scikit-learn's C, on embeddings of unit deviation. It is not searched for: a probe is compared with earlier ones."""


def probe_scores(
    fit_ND: np.ndarray, fit_NK: np.ndarray, score_MD: np.ndarray, score_MK: np.ndarray, neighbours: int, exclusive: bool
) -> dict[str, float]:
    """Area under the ROC curve, and accuracy where classes exclude each other, of both probes.

    Args:
        fit_ND: embeddings to fit on.
        fit_NK: which classes each image is of, 0 or 1.
        score_MD: embeddings to score on.
        score_MK: their classes.
        neighbours: of the nearest-neighbour probe.
        exclusive: whether an image is of one class.

    Returns:
        ``knn_auc``, ``linear_auc``, and ``knn_accuracy``, ``linear_accuracy``. The area is the mean over the classes
        of which there are images to score on, and others. NaN where an embedding is not finite.
    """
    names = ["knn_auc", "linear_auc", *(["knn_accuracy", "linear_accuracy"] if exclusive else [])]
    if not (np.isfinite(fit_ND).all() and np.isfinite(score_MD).all()):
        return dict.fromkeys(names, math.nan)
    told = {
        "knn": nearest(fit_ND, fit_NK, score_MD, neighbours),
        "linear": linear(fit_ND, fit_NK, score_MD, exclusive),
    }
    found = {f"{name}_auc": mean_auc(score_MK, each_MK) for name, each_MK in told.items()}
    if exclusive:
        right = {name: score_MK[np.arange(len(score_MK)), each.argmax(axis=1)] for name, each in told.items()}
        found |= {f"{name}_accuracy": float(each_M.mean()) for name, each_M in right.items()}
    return found


def nearest(fit_ND: np.ndarray, fit_NK: np.ndarray, score_MD: np.ndarray, neighbours: int) -> np.ndarray:
    """Shares ``M, K`` of the votes of the nearest neighbours by cosine.

    A vote weighs ``exp(cosine / 0.07)`` (Wu et al., CVPR 2018, section 3.4).
    """
    index = NearestNeighbors(n_neighbors=min(neighbours, len(fit_ND)), metric="cosine").fit(fit_ND)
    distance_MN, place_MN = index.kneighbors(score_MD)
    weight_MN = np.exp((distance_MN[:, :1] - distance_MN) / _TEMPERATURE)
    votes_MK: np.ndarray = np.einsum("mn,mnk->mk", weight_MN, fit_NK[place_MN])
    return votes_MK / weight_MN.sum(axis=1, keepdims=True)


def linear(fit_ND: np.ndarray, fit_NK: np.ndarray, score_MD: np.ndarray, exclusive: bool) -> np.ndarray:
    """Probabilities ``M, K`` of logistic regression, in which all classes weigh the same.

    A label that all images to fit on have, or none, is told of every image alike.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000))
    if exclusive:
        told_MK: np.ndarray = model.fit(fit_ND, fit_NK.argmax(axis=1)).predict_proba(score_MD)
        return told_MK
    told_MK = np.tile(fit_NK.mean(axis=0), (len(score_MD), 1))
    for column in np.flatnonzero((fit_NK != fit_NK[0]).any(axis=0)):
        told_MK[:, column] = model.fit(fit_ND, fit_NK[:, column]).predict_proba(score_MD)[:, 1]
    return told_MK


def mean_auc(truth_MK: np.ndarray, told_MK: np.ndarray) -> float:
    """The mean area under the ROC curve over the classes that some images are of, and some are not."""
    both = [column for column in range(truth_MK.shape[1]) if 0 < truth_MK[:, column].sum() < len(truth_MK)]
    if not both:
        return math.nan
    return float(np.mean([roc_auc_score(truth_MK[:, column], told_MK[:, column]) for column in both]))
