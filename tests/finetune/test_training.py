from __future__ import annotations

import numpy as np
import pytest
import torch

from data_shards.support.errors import TrainingError
from data_shards.vocabulary import Task
from finetune.heads.linear import LinearHead
from finetune.learners import CachedLearner
from finetune.training import Recipe, Targets, choose_steps, fit_steps, held_out_loss, train

RECIPE = Recipe(max_steps=60, batch_size=8, evaluate_every=5, patience=3)


def _targets(count: int) -> Targets:
    return Targets(torch.arange(count).double()[:, None] % 2, torch.ones(count), torch.zeros(1), Task.binary)


def _learner(count: int, signal: float, rate: float = 0.05) -> CachedLearner:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, 20)).astype(np.float32)
    features[:, 0] += signal * (np.arange(count) % 2)
    return CachedLearner(LinearHead(20, 1), features, rate, 0.0)


def test_training_lowers_the_loss() -> None:
    learner, rows = _learner(40, 2.0), np.arange(40)
    before = held_out_loss(learner, _targets(40), rows, RECIPE)
    fit_steps(learner, _targets(40), rows, RECIPE, seed=0, steps=RECIPE.max_steps)
    assert held_out_loss(learner, _targets(40), rows, RECIPE) < 0.6 * before


def test_every_image_is_seen_equally_often() -> None:
    seen: list[int] = []

    class Recorder(CachedLearner):
        at_once = 1000

        def logits(self, rows: np.ndarray, step: int | None) -> torch.Tensor:
            seen.extend(rows.tolist())
            return super().logits(rows, step)

    plain = _learner(12, 1.0)
    recorder = Recorder(plain.module, np.zeros((12, 20), np.float32), 0.1, 0.0)
    list(train(recorder, _targets(12), np.arange(4, 12), Recipe(max_steps=6, batch_size=4), seed=0))
    assert np.bincount(seen, minlength=12).tolist() == [0] * 4 + [3] * 8


def test_pure_noise_is_stopped_early_and_signal_is_not() -> None:
    folds = [(np.arange(30), np.arange(30, 40))]
    noise, curve = choose_steps(lambda: _learner(40, 0.0), _targets(40), folds, RECIPE, seed=0)
    signal, _ = choose_steps(lambda: _learner(40, 4.0), _targets(40), folds, RECIPE, seed=0)
    assert noise < signal
    assert max(curve) <= noise + RECIPE.patience * RECIPE.evaluate_every
    assert curve[noise] == min(curve.values())


def test_a_refit_to_the_chosen_steps_follows_the_same_schedule() -> None:
    stopped, whole = _learner(20, 1.0), _learner(20, 1.0)
    fit_steps(stopped, _targets(20), np.arange(20), RECIPE, seed=0, steps=10)
    for done in train(whole, _targets(20), np.arange(20), RECIPE, seed=0):
        if done == 10:
            break
    for ours, theirs in zip(stopped.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    learner = CachedLearner(LinearHead(2, 1), np.full((4, 2), np.inf, np.float32), 0.1, 0.0)
    with pytest.raises(TrainingError, match="at step 0"):
        fit_steps(learner, _targets(4), np.arange(4), RECIPE, seed=0, steps=10)
