"""The penalised optimum on frozen features: what is chosen, and that it is the optimum of the given cases."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.fit.linear import DEFAULT_STRENGTH, RAW, STRENGTHS, Selected, Standardiser, averaged, select_linear
from finetune.splits import Folds, selection_folds
from finetune.targets import create_target

READ = "embedding"


def _problem(images: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(images + features)
    labels = np.arange(images) % classes
    inputs = generator.normal(size=(images, features))
    inputs[:, 0] += labels
    inputs[:, 1] = inputs[:, 2]  # an exactly repeated feature
    return inputs, labels


def _select(inputs: np.ndarray, labels: np.ndarray, folds: Folds, *, balanced: bool = True) -> Selected:
    target = create_target("binary", "ab")
    return select_linear({READ: inputs}, labels[:, None], target, folds, balanced=balanced, candidates=[READ])


def test_a_constant_feature_is_centred_and_gets_no_weight() -> None:
    inputs, labels = _problem(40, 5, 2)
    inputs[:, 4] = 7.0
    assert not Standardiser.of(inputs)(inputs)[:, 4].any()
    (model,) = _select(inputs, labels, [], balanced=False).fit.models
    assert model.affine.weight_KD[0, 4] == pytest.approx(0, abs=1e-12)


def test_noise_is_shrunk_more_than_signal() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    noise = generator.normal(size=(60, 50))
    signal = noise + 3 * labels[:, None]
    folds = selection_folds(labels, 0)
    chosen = [_select(inputs, labels, folds) for inputs in (noise, signal)]
    assert chosen[0].strengths[READ] < chosen[1].strengths[READ]
    assert set(chosen[0].held_out_loss) == {READ} and set(chosen[0].strengths.values()) <= set(STRENGTHS)


def test_without_folds_the_stated_default_is_used() -> None:
    inputs, labels = _problem(10, 4, 2)
    selection = _select(inputs, labels, [], balanced=False)
    assert selection.strengths == {READ: DEFAULT_STRENGTH}
    assert selection.held_out_loss == {} and selection.held_out is None


def test_held_out_scores_are_those_of_a_fit_to_the_rest_at_the_chosen_strength() -> None:
    inputs, labels = _problem(30, 6, 2)
    folds = selection_folds(labels, 0)
    found = _select(inputs, labels, folds)
    for train, held in folds:
        alone = select_linear(
            {READ: inputs[train]},
            labels[train][:, None],
            create_target("binary", "ab"),
            [],
            balanced=True,
            candidates=[READ],
            strengths=found.strengths,
        )
        np.testing.assert_allclose(alone.fit.log_scores({READ: inputs[held]}), found.held_out[held], atol=1e-12)
    losses = [-found.held_out[held, labels[held]].mean() for _, held in folds]
    assert found.held_out_loss[READ] == pytest.approx(np.mean(losses))


def test_the_read_with_the_smaller_held_out_loss_is_chosen_and_a_vote_averages_probabilities() -> None:
    inputs, labels = _problem(60, 6, 2)
    features = {
        "embedding": np.random.default_rng(1).normal(size=(60, 5)),
        "mean_spread": inputs + 2 * labels[:, None],
        RAW: inputs,
    }
    target, folds = create_target("binary", "ab"), selection_folds(labels, 0)
    options = {"balanced": True, "candidates": ["embedding", "mean_spread", "vote"]}
    found = select_linear(features, labels[:, None], target, folds, **options)
    assert found.reads == min(found.held_out_loss, key=found.held_out_loss.get) == "mean_spread"
    vote = select_linear(features, labels[:, None], target, folds, balanced=True, candidates=["vote"])
    assert vote.fit.reads == ("embedding", "mean_spread", RAW)  # no covariances are given
    each = [
        select_linear(features, labels[:, None], target, folds, balanced=True, candidates=[read])
        for read in vote.fit.reads
    ]
    mean = np.mean([target.probabilities(one.fit.log_scores(features)) for one in each], axis=0)
    np.testing.assert_allclose(target.probabilities(vote.fit.log_scores(features)), mean, atol=1e-9)
    np.testing.assert_allclose(
        target.probabilities(vote.held_out),
        np.mean([target.probabilities(one.held_out) for one in each], axis=0),
        atol=1e-9,
    )
    without = select_linear(
        {name: features[name] for name in ("embedding", "mean_spread")}, labels[:, None], target, folds, **options
    )
    assert set(without.held_out_loss) == {"embedding", "mean_spread", "vote"}


def test_numbers_are_averaged_as_they_are() -> None:
    target = create_target("regression", ["ml"])
    np.testing.assert_array_equal(averaged(target, [np.array([[1.0]]), np.array([[4.0]])]), [[2.5]])


@pytest.mark.parametrize("name", ["binary", "multiclass", "ordinal", "regression", "multilabel"])
def test_the_model_of_raw_features_is_that_of_standardised_ones(name: str) -> None:
    inputs, labels = _problem(40, 5, 3)
    inputs = 7 + 0.3 * inputs
    labels_NL = labels[:, None]
    if name == "binary":
        labels_NL = labels_NL % 2
    if name == "multilabel":
        labels_NL = np.stack([labels == 1, labels == 2], axis=1).astype(np.int64)
    if name == "regression":
        labels_NL = 50 + 3.0 * labels_NL
    count = {"regression": 1, "binary": 2, "multilabel": 2}.get(name, 3)
    target = create_target(name, "abc"[:count]).fitted_to(labels_NL)
    found = select_linear({READ: inputs}, labels_NL, target, [], balanced=True, candidates=[READ])
    (model,) = found.fit.models
    np.testing.assert_allclose(model.unstandardised()(inputs).numpy(), model.logits(inputs).numpy(), atol=1e-9)
