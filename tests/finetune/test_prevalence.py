"""Probabilities follow the prevalence of the given labels, whatever balances the classes in fitting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from data_shards.support.errors import ConfigError
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.learners import CachedLearner
from finetune.fit.loop import Recipe, fit_steps
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, create_head
from finetune.objective import Objective
from finetune.steppers import Drawing
from finetune.strategies import Rates
from finetune.targets import create_target
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, of_target, tiny_backbone

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


@pytest.mark.parametrize(
    ("balanced", "evenly", "mixup"), [(True, False, 0.0), (False, True, 0.0), (False, False, 0.0), (True, False, 0.05)]
)
@pytest.mark.slow
def test_a_head_trained_by_gradient_has_the_true_probabilities(balanced: bool, evenly: bool, mixup: float) -> None:
    inputs, labels, _ = _gaussians(4000, 0)
    test, _, exact = _gaussians(4000, 1)
    target = create_target("binary", "ab")
    objective = Objective.of(target, labels[:, None], balanced=balanced, drawn_evenly=evenly, loss="nll")
    torch.manual_seed(0)
    readout = Readout(create_head("linear", 3, 1, {"reads": "embedding"}), None)
    features = CaseFeatures(torch.from_numpy(inputs).float())
    learner = CachedLearner(readout, features, Rates(0.05, 0.0, 1.0, 0.0))
    recipe = Recipe(max_steps=800, drawing=Drawing(1000, 0, evenly, mixup))
    fit_steps(learner, objective, np.arange(4000), recipe, 800)
    with torch.no_grad():
        logits = readout(CaseFeatures(torch.from_numpy(test).float()))
    told = target.probabilities(objective.log_scores(logits).numpy())[:, 1]
    assert np.abs(told - exact).mean() < (0.03 if mixup else 0.012)
    if (balanced or evenly) and not mixup:  # where the rare class shapes the fit as the other does, at every point
        np.testing.assert_allclose(told, exact, atol=0.06)
    assert told.mean() == pytest.approx(PREVALENCE, abs=0.01)


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


WITH_GRADIENT = {"head": "attention", "max_steps": 80, "learning_rate": 1e-2}
PRACTICES = [
    {},
    {"ensemble": "folds"},
    WITH_GRADIENT,
    {**WITH_GRADIENT, "sampler": "balanced"},
    {**WITH_GRADIENT, "class_weight": None},
    {**WITH_GRADIENT, "loss": "focal"},
    {**WITH_GRADIENT, "mixup": 0.2},
    {**WITH_GRADIENT, "head_options": {"dropout": 0.3}, "mc_dropout": 8},
    {**WITH_GRADIENT, "ensemble": "folds"},
    {**WITH_GRADIENT, "ensemble": "seeds", "members": 3},
    {**WITH_GRADIENT, "ensemble": "snapshots", "members": 3},
]


@pytest.fixture(scope="module")
def rare() -> tuple:
    """Images of two classes that overlap, a sixth of them of the second: given ones, and new ones of the same kind."""

    def drawn(seed: int, count: int):
        pool = blobs(2 * count, seed=seed)
        rows = np.r_[np.flatnonzero(pool.targets == 0)[: 5 * count // 6], np.flatnonzero(pool.targets)[: count // 6]]
        cases = pool[rows]
        noise = np.random.default_rng(seed).integers(0, 256, cases.images.shape)
        return replace(cases, images=(0.5 * cases.images + 0.5 * noise).astype(np.uint8))

    return drawn(1, 120), drawn(2, 240)


@pytest.mark.slow
@pytest.mark.parametrize("options", PRACTICES, ids=lambda options: " ".join(f"{k}={v}" for k, v in options.items()))
def test_every_practice_gives_the_prevalence_in_the_mean_and_repeats_itself(options: dict, rare: tuple) -> None:
    given, new = rare
    torch.manual_seed(3)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (it is the global one)
    first, second = (FewLabelClassifier(tiny_backbone(), **options).fit(given) for _ in range(2))
    told = first.predict_proba(new)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    np.testing.assert_array_equal(told, second.predict_proba(new))
    np.testing.assert_array_equal(told, first.predict_proba(new))
    assert first.record_ == second.record_
    assert told[:, 1].mean() == pytest.approx(1 / 6, abs=0.06)
    assert told[new.targets == 1, 1].mean() > told[new.targets == 0, 1].mean() + 0.03
    expected = {"none": 1, "folds": 5, "seeds": 3, "snapshots": 3}[options.get("ensemble", "none")]
    assert first.record_.members == len(first.predictor_.members) == expected
    said = first.told(new)
    several = expected > 1 or options.get("mc_dropout", 0) > 1
    assert (said.disagreement is not None) == several
    if several:
        assert said.disagreement.max() > 1e-6


def test_weights_still_shape_the_fit() -> None:
    given = blobs(24, seed=1)
    rows = np.r_[np.flatnonzero(given.targets == 0), np.flatnonzero(given.targets == 1)[:3]]
    fits = [
        FewLabelClassifier(tiny_backbone(), class_weight=weight, head_options={"reads": "embedding"}).fit(given[rows])
        for weight in ("balanced", None)
    ]
    slopes = [fit.predictor_.members[0].head.models[0].affine.weight_KD for fit in fits]
    assert not np.allclose(*slopes, rtol=0.01)


@pytest.mark.parametrize("name", ["multilabel", "regression"])
@pytest.mark.parametrize("options", [{"sampler": "balanced"}, {"head": "attention", "loss": "focal"}])
def test_what_balances_classes_is_refused_where_a_case_has_not_one(name: str, options: dict) -> None:
    from finetune.classifier.estimator import FewLabelRegressor

    estimator = FewLabelRegressor if name == "regression" else FewLabelClassifier
    with pytest.raises(ConfigError, match=f"is for one class per case, not for a {name} target"):
        estimator(tiny_backbone(), **options).fit(of_target(name, 12))
