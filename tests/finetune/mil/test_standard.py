"""Raff and Holt's tests (NeurIPS 2023): does a model keep to the assumption that instances make a bag positive?"""

from __future__ import annotations

import pytest
import torch

from benchmarks.studies.bags import standard
from finetune.mil.pooling import MaxPooling


def test_no_instance_that_is_added_lowers_the_score_of_a_bag_under_max_pooling() -> None:
    scores = torch.randn(20, 6, 1, generator=torch.Generator().manual_seed(0))
    for kept in range(1, 6):
        assert (MaxPooling()(scores[:, : kept + 1]) >= MaxPooling()(scores[:, :kept])).all()


@pytest.mark.parametrize("name", ["single concept", "two concepts", "false frequency"])
def test_max_pooling_says_of_poisoned_bags_what_it_says_of_others(name: str) -> None:
    # What the other poolings do is told in docs/mil.md, and no property of ours.
    found = standard(name, "max", 0)
    assert found["auc"] > (0.7 if name == "two concepts" else 0.9)
    assert found["auc"] > found["alike"] - 0.05
