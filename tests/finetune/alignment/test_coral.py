"""CORAL against formulas written down anew: the loss, its gradient, and re-coloured covariances."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from finetune.alignment import create_alignment
from finetune.alignment.coral import coral_loss, recoloured


def features(count: int, dim: int, seed: int) -> np.ndarray:
    """Correlated features of different scales with means of their own."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dim, dim)) * generator.uniform(0.2, 4, dim)
    return generator.normal(size=(count, dim)) @ mixing + generator.normal(size=dim) * 5


def test_the_loss_is_the_squared_distance_of_the_covariances_over_four_d_squared() -> None:
    source_BD, target_MD = features(40, 6, 0), features(25, 6, 1)
    covariances = []
    for values in (source_BD, target_MD):  # eq. 2 and 3 of the paper, term by term
        ones = np.ones((1, len(values)))
        moment = values.T @ values - (ones @ values).T @ (ones @ values) / len(values)
        covariances.append(moment / (len(values) - 1))
    expected = np.linalg.norm(covariances[0] - covariances[1], "fro") ** 2 / (4 * 6**2)
    found = coral_loss(torch.from_numpy(source_BD), torch.from_numpy(target_MD))
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_the_gradient_of_the_loss_is_that_of_differences() -> None:
    source_BD, target_MD = (torch.from_numpy(features(count, 3, count)) for count in (7, 5))
    assert torch.autograd.gradcheck(coral_loss, (source_BD.requires_grad_(), target_MD.requires_grad_()))


def test_in_training_the_loss_is_that_of_features_in_units_of_their_spread_whatever_their_scale() -> None:
    source_BD, target_MD = (torch.from_numpy(features(count, 6, count)) for count in (40, 25))
    alignment = create_alignment({"name": "coral", "weight": 2.0}, 6)
    found = alignment(source_BD, target_MD, 0.5)
    spread = np.sqrt((np.var(source_BD.numpy(), 0, ddof=1) + np.var(target_MD.numpy(), 0, ddof=1)) / 2)
    apart = np.cov(source_BD.numpy().T / spread[:, None]) - np.cov(target_MD.numpy().T / spread[:, None])
    assert float(found) == pytest.approx(2 * (apart**2).sum() / (4 * 6**2))
    torch.testing.assert_close(alignment(1e-3 * source_BD, 1e-3 * target_MD, 0.5), found)


def test_recoloured_features_have_mean_and_covariance_of_the_target() -> None:
    source_ND, target_MD = features(200, 8, 2), features(120, 8, 3)
    found_ND = recoloured(source_ND, target_MD, ridge=0.0)
    np.testing.assert_allclose(found_ND.mean(axis=0), target_MD.mean(axis=0), atol=1e-9)
    # Standardising takes deviations over N, covariances divide by N - 1; the factor cancels.
    np.testing.assert_allclose(np.cov(found_ND.T), np.cov(target_MD.T), rtol=1e-6, atol=1e-6)


def test_with_a_ridge_it_is_algorithm_1_of_the_paper_on_standardised_features() -> None:
    source_ND, target_MD = features(60, 5, 4), features(50, 5, 5)
    standard = [(each - each.mean(axis=0)) / each.std(axis=0) for each in (source_ND, target_MD)]
    roots = [np.real(scipy.linalg.sqrtm(np.cov(each.T) + np.eye(5))) for each in standard]
    expected = standard[0] @ np.linalg.inv(roots[0]) @ roots[1]
    found = (recoloured(source_ND, target_MD) - target_MD.mean(axis=0)) / target_MD.std(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_fewer_cases_than_numbers_and_numbers_that_do_not_vary_stay_finite() -> None:
    source_ND, target_MD = features(6, 12, 6), features(5, 12, 7)
    source_ND[:, 3] = 2.0
    target_MD[:, 4] = -1.0
    for ridge in (0.0, 1.0):
        found_ND = recoloured(source_ND, target_MD, ridge)
        assert np.isfinite(found_ND).all()
        np.testing.assert_allclose(found_ND[:, 4], -1.0)
    np.testing.assert_allclose(recoloured(target_MD, target_MD, 1.0), target_MD, atol=1e-9)
