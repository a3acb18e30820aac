"""Each target against independent formulas: its loss is what its probabilities say; the prior correction is exact."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, logit
from scipy.stats import bernoulli, norm
from sklearn.metrics import brier_score_loss

from data_shards.support.errors import ConfigError, DataError
from finetune.targets import TARGETS, Target, create_target, target_from_state

CLASSES = {"binary": "ab", "multiclass": "abc", "ordinal": "abcd", "multilabel": "abc", "regression": "ab"}


def _given(name: str, cases: int = 24) -> tuple[Target, np.ndarray]:
    """A target that is ready for its labels, and these: of few classes seldom, of none never."""
    generator = np.random.default_rng(len(name))
    target = create_target(name, CLASSES[name])
    if name == "regression":
        labels = generator.normal(size=(cases, 2)) * [3.0, 0.01] + [2000.0, -1.0]
    elif name == "multilabel":
        labels = (generator.random((cases, 3)) < [0.2, 0.5, 0.8]).astype(np.int64)
    else:
        labels = (np.arange(cases) ** 2 // cases * len(CLASSES[name]) // cases)[:, None]
    target.check(labels)
    return target.fitted_to(labels), labels


def _logits(target: Target, cases: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    outputs = 2 * torch.randn(cases, target.outputs, generator=generator, dtype=torch.float64)
    link = target.link()
    return (outputs if link is None else link(outputs).detach()).to(dtype)


def test_every_kind_of_label_has_a_target() -> None:
    assert TARGETS.names() == sorted(CLASSES)
    with pytest.raises(ConfigError, match="unknown target 'ordnal'.*ordinal"):
        TARGETS.named("ordnal")


@pytest.mark.parametrize("name", CLASSES)
def test_the_loss_of_a_network_is_the_log_loss_of_what_is_told(name: str) -> None:
    target, labels = _given(name)
    logits = _logits(target, len(labels))
    assert logits.shape == (len(labels), target.logits)
    loss = target.loss(logits, target.values(labels))
    assert loss.shape == (len(labels),)
    torch.testing.assert_close(target.log_loss(target.log_scores(logits), labels), loss)


@pytest.mark.parametrize("name", CLASSES)
def test_the_loss_is_minus_the_log_of_the_probability_by_another_formula(name: str) -> None:
    target, labels = _given(name)
    logits = _logits(target, len(labels))
    told = target.probabilities(target.log_scores(logits).numpy())
    loss = target.loss(logits, target.values(labels)).numpy()
    if name == "regression":
        density = norm(told / target.scale_L, 1).logpdf(labels / target.scale_L).sum(axis=1)
        np.testing.assert_allclose(loss + np.log(2 * np.pi), -density)
    elif name == "multilabel":
        np.testing.assert_allclose(loss, -bernoulli(told).logpmf(labels).sum(axis=1))
        np.testing.assert_allclose(told, expit(logits.numpy()))
    else:
        np.testing.assert_allclose(told.sum(axis=1), 1)
        np.testing.assert_allclose(loss, -np.log(told[np.arange(len(labels)), labels[:, 0]]))


def test_the_spread_of_numbers_is_that_of_the_labels() -> None:
    target, labels = _given("regression")
    standard = target.values(labels).numpy()
    np.testing.assert_allclose((standard.mean(axis=0), standard.std(axis=0)), ([0, 0], [1, 1]), atol=1e-9)
    np.testing.assert_allclose(target.log_scores(torch.from_numpy(standard)).numpy(), labels)


@pytest.mark.parametrize("name", CLASSES)
def test_float32_stays_float32_in_the_loss_and_its_gradient_is_finite(name: str) -> None:
    target, labels = _given(name)
    logits = (100 * _logits(target, len(labels), torch.float32)).requires_grad_()
    loss = target.loss(logits, target.values(labels))
    assert loss.dtype is torch.float32
    loss.sum().backward()
    assert torch.isfinite(loss).all() and logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_equal_those_of_torch_also_far_from_zero(dtype: torch.dtype) -> None:
    logits = torch.cat([torch.linspace(-700, 700, 281), torch.linspace(-3, 3, 13)]).to(dtype)[:, None]
    # Up to the rounding of the logits, of which the largest that do not saturate are about 40.
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}
    binary, multilabel = create_target("binary", "ab"), create_target("multilabel", "ab")
    for label in (0, 1):
        expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")
        labels = np.full((len(logits), 1), label)
        torch.testing.assert_close(binary.loss(logits, binary.values(labels)), expected[:, 0], **tolerance)
        both, twice = logits.repeat(1, 2), multilabel.values(labels.repeat(2, axis=1))
        torch.testing.assert_close(multilabel.loss(both, twice), 2 * expected[:, 0], **tolerance)
    logits = torch.cat([logits, -logits / 2, logits / 3], dim=1)
    classes = torch.arange(len(logits)) % 3
    expected = F.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(create_target("multiclass", "abc").loss(logits, classes), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_a_temperature_above_one_brings_probabilities_together_and_leaves_decisions(name: str) -> None:
    target, labels = _given(name)
    scores = target.log_scores(_logits(target, len(labels))).numpy()
    sharp, flat = target.probabilities(scores), target.probabilities(scores, 3.0)
    np.testing.assert_array_equal(target.decide(sharp), target.decide(flat))
    target.check(target.decide(sharp))
    if name == "regression":
        np.testing.assert_array_equal(sharp, flat)
    else:
        assert (np.abs(flat - flat.mean(axis=1, keepdims=True)).max(axis=1) < np.ptp(sharp, axis=1) + 1e-12).all()
        assert flat.max() < sharp.max()
    if name == "binary":
        np.testing.assert_allclose(flat[:, 1], expit(logit(sharp[:, 1]) / 3))


@pytest.mark.parametrize("name", CLASSES)
def test_a_target_comes_back_from_json_as_it_was(name: str) -> None:
    target, labels = _given(name)
    again = target_from_state(json.loads(json.dumps(target.state())))
    assert type(again) is type(target) and again.classes == target.classes and again.state() == target.state()
    logits = _logits(target, len(labels))
    torch.testing.assert_close(again.log_scores(logits), target.log_scores(logits), rtol=0, atol=0)
    assert torch.equal(again.values(labels), target.values(labels))


# What is right of prevalence


def test_balanced_weights_give_every_class_the_same_total() -> None:
    labels = np.array([[0], [0], [0], [1], [2], [2]])
    weights = create_target("multiclass", "abcd").weights(labels)
    assert [weights[labels[:, 0] == label].sum() for label in range(3)] == pytest.approx([2, 2, 2])
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("name", ["binary", "multiclass", "ordinal"])
def test_the_offset_turns_uniform_priors_into_the_given_ones(name: str) -> None:
    target, labels = _given(name)
    share = np.bincount(labels[:, 0]) / len(labels)
    offset = torch.from_numpy(target.offset(labels))
    logits = _logits(target, 5)
    balanced = target.log_scores(logits).exp().numpy()
    adjusted = balanced * share / (balanced * share).sum(axis=1, keepdims=True)  # Saerens et al. 2002, equation 2.4
    np.testing.assert_allclose(target.log_scores(logits, offset).exp().numpy(), adjusted)
    uniform = torch.full((1, len(share)), -np.log(len(share)), dtype=torch.float64)
    np.testing.assert_allclose((uniform + offset).softmax(dim=1)[0].numpy(), share)  # no evidence: the prevalence


def test_what_has_no_balanced_weights_has_no_offset() -> None:
    for name in ("multilabel", "regression"):
        target, labels = _given(name)
        assert target.offset(labels) is None and (target.weights(labels) == 1).all()


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_a_balanced_fit_with_its_offset_is_the_plain_fit_where_the_model_can_be_right(name: str) -> None:
    # One indicator per group: the model is saturated, and its minimum has the frequencies of each group.
    table = np.array([[30, 6, 4], [10, 9, 2], [20, 1, 8]])[:, : len(CLASSES[name])]
    rows = np.array([(g, k) for (g, k), count in np.ndenumerate(table) for _ in range(count)])
    features, labels = np.eye(3)[rows[:, 0]], rows[:, 1:]
    target = create_target(name, CLASSES[name])
    (plain,) = target.linear_path(features, labels, [1e9], None)
    (balanced,) = target.linear_path(features, labels, [1e9], target.weights(labels))
    frequencies = table / table.sum(axis=1, keepdims=True)
    offset = torch.from_numpy(target.offset(labels))
    np.testing.assert_allclose(target.log_scores(plain(np.eye(3))).exp().numpy(), frequencies, atol=1e-6)
    np.testing.assert_allclose(target.log_scores(balanced(np.eye(3)), offset).exp().numpy(), frequencies, atol=1e-6)
    assert np.abs(target.log_scores(balanced(np.eye(3))).exp().numpy() - frequencies).max() > 0.1


PREVALENCE = 0.1
DISTANCE = 1.5


def _gaussians(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two normal classes ``DISTANCE`` apart, a tenth of the second; inputs, labels, and the true probabilities."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) < PREVALENCE * count).astype(np.int64)
    inputs = generator.normal(size=(count, 3))
    inputs[:, 0] += DISTANCE * labels
    # Bayes: the log likelihood ratio of two normal densities is linear in the first coordinate.
    return inputs, labels[:, None], expit(DISTANCE * inputs[:, 0] - DISTANCE**2 / 2 + logit(PREVALENCE))


def test_a_balanced_fit_has_the_probabilities_of_the_closed_form_and_the_brier_score_of_an_unweighted_one() -> None:
    inputs, labels, _ = _gaussians(20_000, 0)
    test, truth, exact = _gaussians(20_000, 1)
    target = create_target("binary", "ab")
    told = []
    for weights, offset in ((None, None), (target.weights(labels), torch.from_numpy(target.offset(labels)))):
        (fit,) = target.linear_path(inputs, labels, [1.0], weights)
        told.append(target.probabilities(target.log_scores(fit(test), offset).numpy())[:, 1])
    plain, balanced = told
    np.testing.assert_allclose(balanced, exact, atol=0.04)
    assert balanced.mean() == pytest.approx(PREVALENCE, abs=0.01)
    assert brier_score_loss(truth, balanced) == pytest.approx(brier_score_loss(truth, plain), abs=3e-4)
    uniform = expit(logit(balanced) - logit(PREVALENCE))
    assert brier_score_loss(truth, uniform) > 1.5 * brier_score_loss(truth, balanced)


# What is refused


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("binary", "abc", "a binary target has 2 classes, found 3"),
        ("multiclass", "a", "a multiclass target has 2 classes or more, found 1"),
        ("ordinal", "a", "an ordinal target has 2 classes or more, found 1"),
        ("multilabel", "aba", "'a' is the name of more than one"),
        ("regression", "", "a number or more, found none"),
    ],
)
def test_classes_that_do_not_fit_are_refused(name: str, classes: Sequence[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        create_target(name, classes)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("binary", np.array([[0], [2]]), "labels run from 0 to 2; the 2 classes are numbered 0 to 1"),
        ("multiclass", np.array([[-1], [2]]), "labels run from -1 to 2; the 3 classes are numbered 0 to 2"),
        ("ordinal", np.array([[0.0], [np.nan]]), r"one class per case, an integer; .*\(2, 1\) and type float64"),
        ("multiclass", np.zeros((2, 3), np.int64), r"one class per case.*\(2, 3\)"),
        ("multilabel", np.zeros((2, 2), np.int64), r"labels of shape \(2, 2\) for 3 labels"),
        ("multilabel", np.array([[0, 1, 0], [0, 3, 1]]), "label 'b' is 0 or 1, found 3"),
        ("regression", np.array([[1.0, 2.0], [1.0, np.inf]]), "NaN or infinite"),
        ("regression", np.array([[1.0], [2.0]]), r"shape \(2, 1\) and type float64 for 2 numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_line(name: str, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        create_target(name, CLASSES[name]).check(labels)
    assert "\n" not in str(refused.value)
