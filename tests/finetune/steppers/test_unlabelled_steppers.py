from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from finetune.fit.learners import CachedLearner
from finetune.fit.loop import Recipe, fit_steps
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, create_head
from finetune.objective import Objective
from finetune.steppers import STEPPERS, Drawing
from finetune.steppers.mean_teacher import follow, holding
from finetune.steppers.mixmatch import major_share, sharpened
from finetune.steppers.pseudo_labels import most_confident, share_of_round
from finetune.steppers.unlabelled import linear_ramp, sigmoid_ramp
from finetune.strategies import Rates
from finetune.targets import create_target

CACHED = ("mean_teacher", "mixmatch", "pseudo_labels")


def test_sharpening_ramps_means_and_shares_are_those_of_the_papers() -> None:
    found = sharpened(torch.tensor([[0.6, 0.4], [0.5, 0.5]]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[0.36 / 0.52, 0.16 / 0.52], [0.5, 0.5]]))
    assert [linear_ramp(step, 4) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert sigmoid_ramp(0, 10) == pytest.approx(math.exp(-5))
    assert sigmoid_ramp(5, 10) == pytest.approx(math.exp(-1.25)) and sigmoid_ramp(10, 10) == 1
    assert (major_share(0.2), major_share(0.9)) == (0.8, 0.9)
    mean, new = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 0.0])]
    follow(mean, new, 0.75)
    torch.testing.assert_close(mean[0], torch.tensor([1.5, 1.5]))
    with holding(new, mean):
        assert new[0].tolist() == [1.5, 1.5]
    assert new[0].tolist() == [3.0, 0.0]


def test_the_most_confident_share_grows_by_rounds() -> None:
    assert [share_of_round(number, 0.4) for number in range(4)] == [0, 0.4, 0.8, 1.0]
    said = np.array([[0.5, 0.5], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    assert most_confident(said, 0.4).tolist() == [1, 4]
    assert most_confident(said, 0.6).tolist() == [1, 2, 4]


def stretched(count: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Clusters that are apart along one axis and wide along another; the labelled ones, first, mislead."""
    generator = np.random.default_rng(3)
    labels = np.arange(count) % classes
    points = np.stack([3.0 * (labels - (classes - 1) / 2), generator.normal(scale=2.0, size=count)], axis=1)
    points[:, 0] += generator.normal(scale=0.4, size=count)
    points[:4, 1] = np.where(labels[:4] == 0, -3.0, 3.0)
    return points.astype(np.float32), labels


def fitted(
    stepper: str, options: dict[str, object], *, classes: int = 2, steps: int = 150
) -> tuple[torch.Tensor, float]:
    """The weights of a linear head, and the AUC of the unlabelled cases."""
    points, labels = stretched(204, classes)
    given = 4 if classes == 2 else 6
    target = create_target("binary" if classes == 2 else "multiclass", "abc"[:classes])
    objective = Objective.of(
        target, labels[:given, None], balanced=False, drawn_evenly=False, loss="nll", unlabelled=204 - given
    )
    torch.manual_seed(0)
    readout = Readout(create_head("linear", 2, target.outputs, {"reads": "embedding"}), None)
    learner = CachedLearner(readout, CaseFeatures(torch.from_numpy(points)), Rates(0.05, 0.0, 1.0, 0.0))
    recipe = Recipe(steps, Drawing(64, 0), stepper, STEPPERS.config(stepper, options))
    report = fit_steps(learner, objective, np.arange(given), recipe, steps)
    assert stepper == "plain" or report["unlabelled"] == 204 - given
    rows = np.arange(given, 204)
    said = objective.log_scores(learner.logits(rows, None)).exp().numpy()
    score = said[:, 1] if classes == 2 else said
    return readout.head.linear.weight.detach(), float(roc_auc_score(labels[given:], score, multi_class="ovr"))


@pytest.mark.parametrize("stepper", CACHED)
def test_without_weight_on_unlabelled_cases_the_fit_is_the_plain_one(stepper: str) -> None:
    plain, _ = fitted("plain", {}, steps=30)
    assert torch.equal(fitted(stepper, {"weight": 0}, steps=30)[0], plain)
    assert not torch.equal(fitted(stepper, {}, steps=30)[0], plain)


def test_clusters_that_labels_alone_do_not_tell_are_told_with_mixmatch() -> None:
    plain, better = fitted("plain", {})[1], fitted("mixmatch", {})[1]
    assert better > plain + 0.1, (plain, better)


def among_noise(stepper: str, seed: int) -> float:
    """AUC of unlabelled cases by a head on 20 channels, one of which tells the class; six cases have labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(300) % 2
    points = generator.normal(size=(300, 20)).astype(np.float32)
    points[:, 0] += 6 * labels - 3
    objective = Objective.of(
        create_target("binary", "ab"), labels[:6, None], balanced=False, drawn_evenly=False, loss="nll", unlabelled=294
    )
    torch.manual_seed(0)
    readout = Readout(create_head("linear", 20, 1, {"reads": "embedding", "dropout": 0.3}), None)
    learner = CachedLearner(readout, CaseFeatures(torch.from_numpy(points)), Rates(0.02, 0.0, 1.0, 0.0))
    recipe = Recipe(200, Drawing(64, 0), stepper, STEPPERS.config(stepper, {}))
    fit_steps(learner, objective, np.arange(6), recipe, 200)
    said = learner.logits(np.arange(6, 300), None).detach().numpy()[:, 0]
    return float(roc_auc_score(labels[6:], said))


def test_guessed_labels_help_where_few_labels_leave_the_direction_open() -> None:
    plain, better = (
        np.mean([among_noise(stepper, seed) for seed in range(3)]) for stepper in ("plain", "pseudo_labels")
    )
    assert better > plain + 0.02, (plain, better)


@pytest.mark.parametrize("stepper", CACHED)
def test_several_classes_are_learned(stepper: str) -> None:
    assert fitted(stepper, {}, classes=3, steps=60)[1] > 0.6
