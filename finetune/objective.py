"""From labels to loss and from logits to probabilities, for each kind of task; and weights against class imbalance.

A binary task has one logit, a multi-label task one per label (sigmoid), a multi-class or ordinal task one per class
(softmax). Shape suffixes: N images, L labels, K logits.

A model fitted with balanced weights learns the probabilities of a world in which all classes are equally common. Those
of the given labels differ from them by the ratio of the priors, ``p(k|x) ~ p_balanced(k|x) n_k`` (Saerens, Latinne and
Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities, Neural Computation 14, 2002, eq. 2.4;
for logistic regression the prior correction of King and Zeng, Logistic regression in rare events data, Political
Analysis 9, 2001, section 4.1). That is a sum of logits and :func:`prior_offset`, exact, and needs no further labels; a
calibration map would have to be fitted on labels that are held out, of which there are few.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.vocabulary import Task

_SOFTPLUS_LINEAR = 40.0
"""Above this, softplus(x) = x to the last bit of a float64."""


def logit_count(task: Task, classes: int) -> int:
    """How many logits a head has."""
    return 1 if task is Task.binary else classes


def column_targets(labels_NL: np.ndarray, task: Task, classes: int) -> Tensor:
    """What :func:`loss_per_image` compares logits with: float64 ``(N, K)``, or int64 ``(N,)`` for a softmax."""
    if task in (Task.binary, Task.multilabel):
        return torch.from_numpy(labels_NL.astype(np.float64)).reshape(len(labels_NL), logit_count(task, classes))
    return torch.from_numpy(labels_NL[:, 0].astype(np.int64))


def loss_per_image(logits_NK: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Negative log likelihood of each image, ``(N,)``; summed over the labels of a multi-label task.

    Written out, because on a few images PyTorch's fused losses spend most of their time waking threads: on a busy
    machine ten times that of the arithmetic.
    """
    if task in (Task.binary, Task.multilabel):
        surprise_NK = F.softplus(logits_NK, threshold=_SOFTPLUS_LINEAR) - targets.to(logits_NK.dtype) * logits_NK
        return surprise_NK.sum(dim=1)
    return logits_NK.logsumexp(dim=1) - logits_NK.gather(1, targets[:, None])[:, 0]


def probabilities(logits_NK: Tensor, task: Task) -> Tensor:
    """Probabilities ``(N, classes)``; of each label alone for a multi-label task."""
    if task is Task.multilabel:
        return logits_NK.sigmoid()
    if task is Task.binary:
        return torch.cat([torch.sigmoid(-logits_NK), torch.sigmoid(logits_NK)], dim=1)
    return logits_NK.softmax(dim=1)


def balanced_weights(labels_NL: np.ndarray, task: Task, classes: int) -> np.ndarray:
    """Sample weights of mean 1 that give every class that occurs the same total, float64 ``(N,)``.

    A multi-label task gets ones: its images carry several labels, and no weight of an image balances them all.
    """
    if task is Task.multilabel:
        return np.ones(len(labels_NL))
    count_C = np.bincount(labels_NL[:, 0], minlength=classes)
    weights: np.ndarray = len(labels_NL) / ((count_C > 0).sum() * count_C[labels_NL[:, 0]])
    return weights


def prior_offset(labels_NL: np.ndarray, task: Task, classes: int) -> np.ndarray:
    """What is added to the logits of a fit with :func:`balanced_weights`, so that the given prevalence holds again.

    Returns:
        float64 ``(K,)``: the log of each class's weight, with a minus; nothing for a multi-label task, and for a class
        that does not occur. The one logit of a binary task takes the difference of its classes.
    """
    if task is Task.multilabel:
        return np.zeros(classes)
    count_C = np.bincount(labels_NL[:, 0], minlength=classes)
    present = count_C > 0
    offset_C = np.zeros(classes)
    offset_C[present] = np.log(count_C[present] * present.sum() / len(labels_NL))
    return offset_C[1:] - offset_C[:1] if task is Task.binary else offset_C
