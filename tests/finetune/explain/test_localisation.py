"""Scores of maps against masks."""

from __future__ import annotations

import numpy as np
import pytest

from data_shards.support.errors import DataError
from finetune.explain.localisation import centre_prior, chance, hit, mass


def test_hit_and_mass_count_what_lies_in_the_mask() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:3] = True
    values = np.full((4, 5), -3.0)
    values[1, 1], values[0, 0], values[2, 2] = 5, 3, 2
    assert hit(values, mask) == 1 and mass(values, mask) == pytest.approx(7 / 10)
    values[0, 0] = 5
    assert hit(values, mask) == 0.5
    assert mass(-np.ones((4, 5)), mask) == hit(np.zeros((4, 5)), mask) == chance(mask) == 0.2


def test_random_maps_score_the_area_of_the_mask() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:7] = True
    generator = np.random.default_rng(0)
    maps = [generator.random((8, 8)) for _ in range(4000)]
    assert np.mean([hit(each, mask) for each in maps]) == pytest.approx(chance(mask), abs=0.02)
    assert np.mean([mass(each, mask) for each in maps]) == pytest.approx(chance(mask), abs=0.005)


@pytest.mark.parametrize("shape", [(7,), (6, 9), (5, 8, 4)])
def test_the_centre_prior_is_a_gaussian_around_the_middle(shape: tuple[int, ...]) -> None:
    found = centre_prior(shape)
    assert found.shape == shape
    assert all(found == pytest.approx(np.flip(found, axis)) for axis in range(len(shape)))
    middle = tuple((length - 1) // 2 for length in shape)
    assert found[middle] == found.max()


def test_an_empty_mask_or_another_shape_is_refused() -> None:
    with pytest.raises(DataError, match="a mask of shape"):
        hit(np.ones((3, 3)), np.zeros((3, 3), bool))
    with pytest.raises(DataError, match="a mask of shape"):
        mass(np.ones((3, 3)), np.ones((3, 4), bool))
