from __future__ import annotations

import pytest
import torch

from data_shards.support.errors import ConfigError
from finetune.mil.penalties import (
    area,
    instance_probabilities,
    presence,
    ranking_between,
    ranking_within,
    sparsity,
)

PROBABILITY = torch.tensor([[0.9, 0.2, 0.4, 9.0], [0.3, 0.1, 9.0, 9.0], [0.6, 9.0, 9.0, 9.0]], dtype=torch.float64)
MASK = PROBABILITY <= 1
POSITIVE = torch.tensor([[1], [0], [1]])
GIVEN = PROBABILITY[..., None], MASK, POSITIVE


def test_area_is_the_squared_distance_of_the_mean_where_the_output_is_present() -> None:
    expected = torch.tensor([(0.5 - 0.2) ** 2, 0.0, (0.6 - 0.2) ** 2], dtype=torch.float64)
    torch.testing.assert_close(area(*GIVEN, 0.2), expected)


def test_sparsity_is_the_sum_where_the_output_is_present() -> None:
    torch.testing.assert_close(sparsity(*GIVEN), torch.tensor([1.5, 0.0, 0.6], dtype=torch.float64))


def test_ranking_within_asks_for_a_margin_between_top_and_bottom() -> None:
    # Top 0.9 over bottom 0.2; the bag of one instance has no bottom of its own.
    torch.testing.assert_close(ranking_within(*GIVEN, 0.8), torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64))
    assert not ranking_within(*GIVEN, 0.7).gt(1e-12).any()


def test_ranking_between_asks_for_a_margin_over_bags_without_the_output() -> None:
    torch.testing.assert_close(ranking_between(*GIVEN, 0.5), torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64))
    assert not ranking_between(*GIVEN[:2], torch.ones(3, 1), 0.5).any()  # none to be above of


def test_terms_have_the_gradient_of_finite_differences_and_none_in_padding() -> None:
    scores = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    positive = torch.tensor([[1, 0], [0, 1], [1, 1]])

    def total(scores: torch.Tensor) -> torch.Tensor:
        given = instance_probabilities(scores, exclusive=False), MASK, positive
        return area(*given, 0.3) + sparsity(*given) + ranking_within(*given, 0.9) + ranking_between(*given, 0.9)

    assert torch.autograd.gradcheck(total, (scores,))
    (gradient,) = torch.autograd.grad(total(scores).sum(), scores)
    assert not gradient[~MASK].any()


def test_what_is_present_follows_from_classes_and_labels_and_from_nothing_else() -> None:
    assert presence(torch.tensor([0, 1, 1]), 1).tolist() == [[0], [1], [1]]
    assert presence(torch.tensor([0, 2]), 3).tolist() == [[1, 0, 0], [0, 0, 1]]
    labels = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert torch.equal(presence(labels, 2), labels)
    for values, outputs in ((torch.tensor([0, 2]), 1), (torch.tensor([[0.3]]), 1)):
        with pytest.raises(ConfigError, match="are for classes and labels, not for numbers and grades"):
            presence(values, outputs)


def test_probabilities_of_classes_that_exclude_each_other_add_up_to_one() -> None:
    scores = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(instance_probabilities(scores, exclusive=True).sum(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(instance_probabilities(scores, exclusive=False), torch.sigmoid(scores))
