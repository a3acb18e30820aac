"""The number that is explained is the log odds of what the classifier says, for every head, target and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelModel
from finetune.explain.gradients import outputs
from finetune.explain.question import Question
from finetune.fit.encoding import StudyFeatures
from tests.finetune.explain.fits import HEADS, SHAPES, STRATEGIES, fitted, made
from tests.finetune.samples import TARGETS, blobs, of_target


def wanted(model: FewLabelModel, cases: Cases) -> np.ndarray:
    """Log odds of the probabilities, or the numbers."""
    said = model.predictor_.predict_proba(cases)
    return np.log(said) - np.log1p(-said) if cases.target.classifies else said


def asked(model: FewLabelModel, cases: Cases, place: int) -> list[float]:
    predictor, view = model.predictor_, model.predictor_.shown(cases)
    (member,) = predictor.members
    questions = [Question(member, view.studies_of(case), place, predictor.temperature) for case in range(len(cases))]
    return [question.value for question in questions]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_of_every_head_and_shape(head: str, shape: str) -> None:
    model, cases = made(head, shape)
    np.testing.assert_allclose(asked(model, cases, 1), wanted(model, cases)[:, 1], rtol=1e-3, atol=1e-3)


def test_of_raw_pixels() -> None:
    model, _ = made("raw", "planes")
    np.testing.assert_allclose(asked(model, blobs(12), 0), wanted(model, blobs(12))[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["vote", "attention"])
@pytest.mark.parametrize("target", TARGETS)
def test_of_every_target(target: str, head: str) -> None:
    cases = of_target(target)
    model = fitted(cases, **HEADS[head])
    expected = wanted(model, cases)
    for place in range(expected.shape[1]):
        np.testing.assert_allclose(asked(model, cases, place), expected[:, place], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_every_strategy_and_with_a_temperature(strategy: str) -> None:
    cases = blobs(24)
    model = fitted(cases, strategy=strategy, max_steps=4)
    object.__setattr__(model.predictor_, "temperature", 2.5)
    np.testing.assert_allclose(asked(model, cases, 1), wanted(model, cases)[:, 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_those_of_small_steps(head: str) -> None:
    """The rise along the gradient is its length, by a difference of two evaluations."""
    model, cases = made(head, "planes")
    question = Question(model.predictor_.members[0], cases.studies_of(3), 1)
    (found,) = outputs(question)
    directions: dict[str, Any] = {"embedding_D": found.by_embedding_D, "tokens_TD": found.by_tokens_TD}
    length = sum(float(each.square().sum()) for each in directions.values() if each is not None) ** 0.5
    step = 1e-2

    def moved(sign: float) -> float:
        values = {
            name: getattr(found.values, name)
            if each is None
            else getattr(found.values, name) + sign * step * each / length
            for name, each in directions.items()
        }
        features = StudyFeatures(values["embedding_D"], values["tokens_TD"], found.values.grid, found.values.images)
        pixels = None if question.pixels_SF is None else question.pixels_SF[None]
        with torch.no_grad():
            return float(question.evidence([[features]], pixels))

    assert cases.task is Task.binary
    assert (moved(1) - moved(-1)) / (2 * step) == pytest.approx(length, rel=0.05)
