"""Integrated gradients: what they add up to, where they are nothing, and what they are where that can be said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.explain.methods import create_method
from finetune.explain.question import Question
from finetune.explain.removed import baseline
from finetune.images import Study
from tests.finetune.explain.fits import made

CASES = [("embedding", "planes"), ("vote", "bags"), ("attention", "pairs"), ("mil", "volumes"), ("tangent", "planes")]


def emptied(study: Study, kind: str, block: int) -> Study:
    images = {name: replace(each, pixels=baseline(each, kind, block)) for name, each in study.images.items()}
    return replace(study, images=images)


@pytest.mark.parametrize(("head", "shape"), CASES)
def test_parts_add_up_to_the_evidence_less_that_of_the_baseline(head: str, shape: str) -> None:
    """Also over the studies and images of a case, and with the raw pixels of a vote, which stay."""
    model, cases = made(head, shape)
    (member,) = model.predictor_.members
    question = Question(member, cases.studies_of(3), 1)
    start = Question(member, [emptied(each, "mean", 4) for each in question.studies], 1)
    raw = None if question.pixels_SF is None else question.pixels_SF[None]
    with torch.no_grad():
        before = float(question.evidence([start.features], raw))
    said = create_method("integrated_gradients", {"baseline": "mean", "steps": 24}).maps(question)
    assert sum(each.values.sum() for each in said) == pytest.approx(question.value - before, rel=0.03, abs=2e-5)
    assert abs(question.value - before) > 2e-4


def test_the_steps_it_takes_by_default_are_as_good_as_many() -> None:
    model, cases = made("embedding", "planes")
    (member,) = model.predictor_.members
    question = Question(member, cases.studies_of(2), 1)
    coarse, fine = (
        create_method("integrated_gradients", options).maps(question)[0].values for options in ({}, {"steps": 48})
    )
    np.testing.assert_allclose(coarse, fine, atol=0.05 * np.abs(fine).max())
    one = create_method("integrated_gradients", {"positive": True}).maps(question)[0].values
    np.testing.assert_array_equal(one, coarse.clip(min=0))


def test_a_token_that_is_as_it_was_has_no_part() -> None:
    """The image is the baseline but for one corner: only tokens that see it count."""
    model, cases = made("attention", "planes")
    (member,) = model.predictor_.members
    (study,) = cases.studies_of(0)
    pixels = np.zeros_like(study.images["image"].pixels)
    pixels[..., :4, :4] = 200
    changed = replace(study, images={"image": replace(study.images["image"], pixels=pixels)})
    (said,) = create_method("integrated_gradients", {"baseline": "zero"}).maps(Question(member, [changed], 1))
    assert said.values[0, 0] != 0
    assert not said.values[2:].any() and not said.values[:, 2:].any()
