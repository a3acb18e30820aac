"""Probabilities follow the prevalence of the given labels, though the classes are balanced in fitting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from data_shards.vocabulary import Task
from finetune.estimator import FewLabelClassifier
from finetune.heads.linear import LinearHead
from finetune.learners import CachedLearner
from finetune.logistic import fit_logistic
from finetune.objective import balanced_weights, column_targets, prior_offset
from finetune.training import Recipe, Targets, fit_steps
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone

PREVALENCE = 0.1
DISTANCE = 1.5


def _gaussians(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two normal classes ``DISTANCE`` apart, a tenth of the second; inputs, labels, and the true probabilities."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) < PREVALENCE * count).astype(np.int64)
    inputs = generator.normal(size=(count, 3))
    inputs[:, 0] += DISTANCE * labels
    # Bayes: the log likelihood ratio of two normal densities is linear in the first coordinate.
    return inputs, labels, expit(DISTANCE * inputs[:, 0] - DISTANCE**2 / 2 + logit(PREVALENCE))


def test_the_balanced_probe_has_the_probabilities_of_the_closed_form_and_the_brier_score_of_an_unweighted_fit() -> None:
    inputs, labels, _ = _gaussians(20_000, 0)
    test, truth, exact = _gaussians(20_000, 1)
    given = {"classes": 2, "strengths": [1.0]}
    plain, balanced = (
        fit_logistic(inputs, labels[:, None], Task.binary, balanced=weighted, **given)[0].predict_proba(test)[:, 1]
        for weighted in (False, True)
    )
    np.testing.assert_allclose(balanced, exact, atol=0.04)
    assert balanced.mean() == pytest.approx(PREVALENCE, abs=0.01)
    assert brier_score_loss(truth, balanced) == pytest.approx(brier_score_loss(truth, plain), abs=3e-4)
    uniform = expit(logit(balanced) - logit(PREVALENCE))
    assert brier_score_loss(truth, uniform) > 1.5 * brier_score_loss(truth, balanced)


def test_a_head_trained_by_gradient_has_them_too() -> None:
    inputs, labels, _ = _gaussians(4000, 0)
    test, _, exact = _gaussians(4000, 1)
    labels_N1 = labels[:, None]
    offset = torch.from_numpy(prior_offset(labels_N1, Task.binary, 2))
    weights = torch.from_numpy(balanced_weights(labels_N1, Task.binary, 2)).float()
    targets = Targets(column_targets(labels_N1, Task.binary, 2), weights, offset, Task.binary)
    torch.manual_seed(0)
    learner = CachedLearner(LinearHead(3, 1), inputs.astype(np.float32), 0.05, 0.0)
    fit_steps(learner, targets, np.arange(4000), Recipe(max_steps=150, batch_size=1000), seed=0, steps=150)
    with torch.no_grad():
        logits = learner.module(torch.from_numpy(test.astype(np.float32))).double() + offset
    np.testing.assert_allclose(torch.sigmoid(logits)[:, 0].numpy(), exact, atol=0.06)


@pytest.mark.parametrize("task", [Task.multiclass, Task.binary])
def test_the_offset_turns_uniform_priors_into_the_given_ones(task: Task) -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2] * (task is Task.multiclass))[:, None]
    offset = prior_offset(labels, task, 3 if task is Task.multiclass else 2)
    if task is Task.binary:
        assert expit(offset) == pytest.approx([3 / 9])  # no evidence: the prevalence
    else:
        assert np.exp(offset) / np.exp(offset).sum() == pytest.approx([0.6, 0.3, 0.1])
    assert not prior_offset(np.array([[1, 0], [1, 1]]), Task.multilabel, 2).any()


WAYS = [("linear", "frozen"), ("attention", "frozen"), ("linear", "full")]


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_images_that_tell_nothing_get_the_prevalence_and_keep_it_on_disk(
    head: str, strategy: str, tmp_path: Path
) -> None:
    images = np.full((40, 1, 16, 16), 90, np.uint8)
    labels = (np.arange(40) < 8).astype(np.int64)
    bundle = save_bundle(tmp_path / "bundle", tiny_backbone(), "medformer_nano", TINY, {}, {})
    options = {"max_steps": 30, "learning_rate": 1e-3, "augmentation": False}
    classifier = FewLabelClassifier(bundle, head=head, strategy=strategy, **options).fit(images, labels)
    np.testing.assert_allclose(classifier.predict_proba(images[:1])[0, 1], 0.2, atol=0.04)
    classifier.save(tmp_path / "classifier")
    loaded = FewLabelClassifier.load(tmp_path / "classifier")
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


def test_weights_still_shape_the_fit() -> None:
    given = blobs(24, seed=1)
    rows = np.r_[np.flatnonzero(given.targets == 0), np.flatnonzero(given.targets == 1)[:3]]
    fits = [
        FewLabelClassifier(tiny_backbone(), class_weight=weight).fit(given.images[rows], given.targets[rows])
        for weight in ("balanced", None)
    ]
    slopes = [fit.predictor_.head.logistic.weight_KD for fit in fits]
    assert not np.allclose(*slopes, rtol=0.01)
