from __future__ import annotations

import numpy as np
import pytest
import torch

from data_shards.support.errors import TrainingError
from finetune.fit.learners import CachedLearner
from finetune.fit.loop import (
    Recipe,
    choose_steps,
    cycle_ends,
    fit_steps,
    held_out_loss,
    held_out_scores,
    train,
)
from finetune.fit.network import Readout
from finetune.fit.schedules import Schedule, choose_schedule
from finetune.heads import CaseFeatures, create_head
from finetune.objective import Objective
from finetune.steppers import Drawing
from finetune.strategies import Rates, Stage
from finetune.targets import create_target

EMBEDDING = {"reads": "embedding"}


def recipe(steps: int = 60, batch_size: int = 8, **options: object) -> Recipe:
    drawing = {name: options.pop(name) for name in ("evenly", "mixup") if name in options}
    return Recipe(max_steps=steps, drawing=Drawing(batch_size, 0, **drawing), evaluate_every=5, patience=3, **options)


RECIPE = recipe()


def objective(count: int, **options: object) -> Objective:
    settings = {"balanced": False, "drawn_evenly": False, "loss": "nll", **options}
    return Objective.of(create_target("binary", "ab"), np.arange(count)[:, None] % 2, **settings)


def learner_of(count: int, signal: float, kind: type[CachedLearner] = CachedLearner) -> CachedLearner:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, 20)).astype(np.float32)
    features[:, 0] += signal * (np.arange(count) % 2)
    torch.manual_seed(0)
    readout = Readout(create_head("linear", 20, 1, EMBEDDING), None)
    return kind(readout, CaseFeatures(torch.from_numpy(features)), Rates(0.05, 0.0, 1.0, 0.0))


def _loss(learner: CachedLearner, count: int) -> float:
    everything = np.arange(count)
    said = held_out_scores(learner, objective(count), everything, RECIPE)
    return held_out_loss(objective(count), [said], [(everything, everything)])


def test_training_lowers_the_loss() -> None:
    learner = learner_of(40, 2.0)
    before = _loss(learner, 40)
    fit_steps(learner, objective(40), np.arange(40), RECIPE, RECIPE.max_steps)
    assert _loss(learner, 40) < 0.6 * before


class Recorder(CachedLearner):
    seen: list[int]

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> torch.Tensor:
        self.seen.extend(rows.tolist())
        return super().losses(objective, rows, step)


def test_every_case_is_seen_equally_often() -> None:
    learner = learner_of(12, 1.0, kind=Recorder)
    learner.seen = []
    list(train(learner, objective(12), np.arange(4, 12), recipe(6, 4)))
    assert np.bincount(learner.seen, minlength=12).tolist() == [0] * 4 + [3] * 8


def test_the_balanced_sampler_shows_every_class_equally_often_and_its_cases_in_turn() -> None:
    labels = np.array([0] * 18 + [1] * 6)[:, None]
    given = Objective.of(create_target("binary", "ab"), labels, balanced=True, drawn_evenly=True, loss="nll")
    assert torch.equal(given.weights, torch.ones(24))  # not weighted a second time
    learner = learner_of(24, 1.0, kind=Recorder)
    learner.seen = []
    list(train(learner, given, np.arange(24), recipe(6, 12, evenly=True)))
    counts = np.bincount(learner.seen, minlength=24)
    assert counts[:18].sum() == counts[18:].sum() == 36
    assert set(counts[:18]) == {2} and set(counts[18:]) == {6}


def test_pure_noise_is_stopped_early_and_signal_is_not() -> None:
    folds = [(np.arange(30), np.arange(30, 40))]
    noise = choose_steps(lambda rows: learner_of(40, 0.0), objective(40), folds, RECIPE)
    signal = choose_steps(lambda rows: learner_of(40, 4.0), objective(40), folds, RECIPE)
    assert noise.steps < signal.steps
    assert max(noise.curve) <= noise.steps + RECIPE.patience * RECIPE.evaluate_every
    assert noise.curve[noise.steps] == min(noise.curve.values())
    # What is kept is what the learner said at the best step.
    again = learner_of(40, 0.0)
    fit_steps(again, objective(40), np.arange(30), RECIPE, noise.steps)
    np.testing.assert_array_equal(held_out_scores(again, objective(40), np.arange(30, 40), RECIPE), noise.held_out[0])


def test_a_refit_to_the_chosen_steps_follows_the_same_schedule() -> None:
    stopped, whole = learner_of(20, 1.0), learner_of(20, 1.0)
    fit_steps(stopped, objective(20), np.arange(20), RECIPE, 10)
    for done in train(whole, objective(20), np.arange(20), RECIPE):
        if done == 10:
            break
    for ours, theirs in zip(stopped.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    readout = Readout(create_head("linear", 2, 1, EMBEDDING), None)
    learner = CachedLearner(readout, CaseFeatures(torch.full((4, 2), torch.inf)), Rates(0.1, 0.0, 1.0, 0.0))
    with pytest.raises(TrainingError, match="at step 0"):
        fit_steps(learner, objective(4), np.arange(4), RECIPE, 10)


def test_a_held_out_loss_that_is_not_finite_is_no_candidate() -> None:
    folds = [(np.arange(30), np.arange(30, 40))]

    def build(schedule: Schedule, rows: np.ndarray) -> CachedLearner:
        learner = learner_of(40, 4.0)
        if schedule.rate == 1.0:
            learner._features.embedding_BD[35] = torch.nan  # held out
        return learner

    schedules = [Schedule(10, 1.0), Schedule(10, 0.05)]
    options = {"stop": False, "scored": True}
    choice = choose_schedule(build, objective(40), folds, schedules, lambda each: recipe(each.steps), **options)
    assert choice.schedule == schedules[1]
    assert choice.held_out_loss["10 steps at 1"] == np.inf
    with pytest.raises(TrainingError, match="held-out loss is nan"):
        choose_schedule(build, objective(40), folds, schedules[:1], lambda each: recipe(each.steps), **options)


class InStages(CachedLearner):
    """First the bias, for a quarter of the steps, then the weights."""

    def stages(self) -> list[Stage]:
        head = self.module.head
        return [
            Stage("bias", [{"params": [head.linear.bias], "lr": 0.1, "weight_decay": 0.0}], 1),
            Stage("weights", [{"params": [head.linear.weight], "lr": 0.1, "weight_decay": 0.0}], 3),
        ]


def test_what_does_not_move_in_a_stage_keeps_its_bits_and_its_gradient_is_off() -> None:
    learner = learner_of(40, 2.0, kind=InStages)
    weight, bias = learner.module.head.linear.weight, learner.module.head.linear.bias
    before = weight.detach().clone(), bias.detach().clone()
    run = train(learner, objective(40), np.arange(40), recipe(20))
    assert next(run) == 5  # the end of the first stage
    assert torch.equal(weight, before[0]) and not torch.equal(bias, before[1])
    assert not weight.requires_grad and bias.requires_grad
    middle = bias.detach().clone()
    assert list(run) == [10, 15, 20]
    assert torch.equal(bias, middle) and not torch.equal(weight, before[0])
    assert weight.requires_grad and bias.requires_grad


def test_a_snapshot_is_taken_where_the_rate_of_the_last_stage_has_fallen() -> None:
    learner, settings = learner_of(40, 2.0, kind=InStages), recipe(21, cycles=2)
    assert cycle_ends(learner, settings) == [13, 21]  # the first stage has 5 steps, the cycles of the last one 8 each
    assert cycle_ends(learner_of(40, 2.0), recipe(20, cycles=3)) == [7, 13, 20]
    rates: list[float] = []
    real = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: object) -> None:
        rates.append(self.param_groups[0]["lr"])
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        list(train(learner, objective(40), np.arange(40), settings))
    assert len(rates) == 21
    ends = [step for step in range(20) if rates[step + 1] > rates[step] and rates[step] < 0.05]
    assert ends == [4, 12]  # steps are counted from 0


def test_the_share_of_a_mixture_is_that_of_the_step_however_the_batch_is_cut() -> None:
    class Cut(CachedLearner):
        at_once = 4
        shares: list[float]

        def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[torch.Tensor, np.ndarray]:
            self.shares.append(share)
            return super().mixed(rows, step, share)

    learner = learner_of(24, 1.0, kind=Cut)
    learner.shares = []
    list(train(learner, objective(24), np.arange(24), recipe(5, 8, mixup=0.4)))
    assert len(learner.shares) == 10
    assert learner.shares[::2] == learner.shares[1::2] and len(set(learner.shares)) == 5


def test_mixtures_are_trained_to_the_labels_of_both() -> None:
    learner, rows = learner_of(24, 1.0), np.array([3, 0, 5])
    logits, others = learner.mixed(rows, 0, 0.3)
    assert others.tolist() == [5, 3, 0]
    features = learner._features.embedding_BD
    mixed = 0.3 * features[rows] + 0.7 * features[others]
    torch.testing.assert_close(logits, learner.module.head.linear(mixed))
