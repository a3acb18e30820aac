"""Random numbers by address: uniform, independent between addresses, and the same in any batch."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain.views.counter_rng import normals, sample_keys, uniforms

SAMPLES = np.arange(20_000)
# Critical values at significance 1e-4: the draws are fixed, so a failure is a defect and not bad luck.
KOLMOGOROV = 2.23


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """Scaled distance between the empirical distribution and the uniform one."""
    ordered = np.sort(values)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(np.sqrt(len(ordered)) * max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))


@pytest.mark.parametrize("counter", [0, 1, 17])
def test_numbers_of_one_purpose_are_uniform_over_samples(counter: int) -> None:
    assert kolmogorov_smirnov(uniforms(sample_keys(0, 0, 0, SAMPLES, 0), 18)[:, counter]) < KOLMOGOROV


def test_numbers_of_one_sample_are_uniform() -> None:
    assert kolmogorov_smirnov(uniforms(sample_keys(0, 0, 0, np.array([7]), 0), 20_000)[0]) < KOLMOGOROV


def test_all_bits_are_even() -> None:
    bits = (uniforms(sample_keys(0, 0, 0, SAMPLES, 0), 4) * 2.0**53).astype(np.uint64).ravel()
    ones = np.array([((bits >> np.uint64(place)) & np.uint64(1)).mean() for place in range(53)])
    assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / np.sqrt(bits.size)


@pytest.mark.parametrize(
    "address", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 1 << 20), (2**31 - 1, 0, 0, 0)]
)
def test_every_part_of_the_address_counts_and_leaves_no_correlation(address: tuple[int, int, int, int]) -> None:
    seed, epoch, dataset, view = address
    own = uniforms(sample_keys(0, 0, 0, SAMPLES, 0), 3)
    other = uniforms(sample_keys(seed, epoch, dataset, SAMPLES, view), 3)
    correlation = np.corrcoef(np.concatenate([own, other], axis=1).T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(SAMPLES))


def test_neighbouring_samples_are_uncorrelated() -> None:
    u = uniforms(sample_keys(0, 0, 0, SAMPLES, 0), 1)[:, 0]
    for lag in (1, 2, 16, 256):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 4.5 / np.sqrt(len(u) - lag)


def test_keys_do_not_collide() -> None:
    keys = [sample_keys(0, epoch, 0, SAMPLES, view) for epoch in range(10) for view in (0, 1)]
    assert len(np.unique(np.concatenate(keys))) == 20 * len(SAMPLES)


def test_numbers_do_not_depend_on_the_company() -> None:
    keys = sample_keys(5, 3, 1, SAMPLES[:1000], 1)
    together, alone = uniforms(keys, 9), uniforms(keys[500:501], 9)
    assert np.array_equal(together[500:501], alone)
    assert np.array_equal(together[:, :4], uniforms(keys, 4))
    assert np.array_equal(normals(keys, 9)[500:501], normals(keys[500:501], 9))


def test_normals_have_the_moments_of_a_normal_distribution() -> None:
    z = normals(sample_keys(0, 0, 0, SAMPLES[:2000], 0), 101).ravel().astype(np.float64)
    root = np.sqrt(z.size)
    assert abs(z.mean()) < 4.5 / root
    assert abs((z**2).mean() - 1) < 4.5 * np.sqrt(2) / root
    assert abs((z**4).mean() - 3) < 4.5 * np.sqrt(96) / root
    assert abs(np.abs(z).__gt__(2).mean() - 0.0455) < 4.5 * np.sqrt(0.0455) / root


def test_normals_stay_finite_where_a_uniform_rounds_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.views.counter_rng.uniforms", lambda keys, count: np.full((1, count), 1 - 2.0**-53))
    with np.errstate(all="raise"):
        assert np.isfinite(normals(np.zeros(1, np.uint64), 4)).all()
