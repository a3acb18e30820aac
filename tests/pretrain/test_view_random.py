"""Random numbers by address: uniform, independent between addresses, and the same in any batch and on any device."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from pretrain.views.random import normals, sample_keys, stream, stream_words, streams, uniforms

SAMPLES = torch.arange(20_000)
NAMES = ("crop", "flip", "noise", "noise.more")
# Significance: the draws are fixed, so a failure is a defect and not bad luck.
LEAST = 1e-4
SIGMAS = 4.5


def of_samples(**address: int) -> Tensor:
    given = {"seed": 0, "epoch": 0, "dataset": 0, "view": 0, **address}
    return sample_keys(given["seed"], given["epoch"], given["dataset"], SAMPLES, given["view"])


# The same numbers written once more, in NumPy's unsigned integers.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, as in the reference implementation of Vigna (splitmix64.c)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def chained(key: np.ndarray, word: np.ndarray) -> np.ndarray:
    return splitmix((key + GOLDEN) ^ splitmix(word))


def words(numbers: object) -> np.ndarray:
    return np.asarray(numbers).astype(np.uint64).reshape(-1)


@pytest.fixture(autouse=True)
def _wrapping() -> Iterator[None]:
    with np.errstate(over="ignore"):
        yield


def test_the_finaliser_is_that_of_splitmix64() -> None:
    # The first outputs of splitmix64.c for the seed 1234567, as published with many of its translations.
    states = words([1234567] * 5) + GOLDEN * words([1, 2, 3, 4, 5])
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert splitmix(states).tolist() == known


@pytest.mark.parametrize("address", [(0, 0, 0, 0), (2**31 - 1, 12, 3, 31), (7, 1, 0, 1)])
def test_numbers_are_those_of_the_chain_written_in_numpy(address: tuple[int, int, int, int]) -> None:
    seed, epoch, dataset, view = address
    samples = torch.tensor([0, 1, 5, 2**40, 2**63 - 1])
    key = words([0])
    for word in (seed, epoch, dataset, view):
        key = chained(key, words([word]))
    key = chained(key, words(samples) + GOLDEN)
    found = sample_keys(seed, epoch, dataset, samples, view)
    assert found.dtype == torch.int64 and np.array_equal(found.numpy().view(np.uint64), key)

    digest = hashlib.blake2b(b"crop", digest_size=8).digest()
    key = chained(key, words([int.from_bytes(digest, "little")]))
    found = stream(found, "crop")
    assert np.array_equal(found.numpy().view(np.uint64), key)

    bits = splitmix(key[:, None] ^ (words(np.arange(1, 8)) * GOLDEN))
    assert np.array_equal(uniforms(found, 7).numpy(), (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    # Box and Muller in double precision, of the same bits.
    pairs = bits[:, :4]
    radius = np.sqrt(-2 * np.log(((pairs >> np.uint64(40)).astype(np.int64) ^ (1 << 23)) * 2.0**-24 + 2.0**-25))
    angle = (pairs & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32) * (2 * np.pi * 2.0**-32)
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(normals(found, 8).numpy(), expected, atol=2e-6)


def test_several_streams_at_once_are_those_of_each_by_itself() -> None:
    keys = of_samples()[:50]
    together = streams(keys, stream_words(NAMES, keys.device))
    assert all(torch.equal(together[:, place], stream(keys, name)) for place, name in enumerate(NAMES))


@pytest.mark.parametrize("counter", [0, 1, 17])
def test_numbers_of_one_purpose_are_uniform_over_samples(counter: int) -> None:
    found = uniforms(stream(of_samples(), "crop"), 18)[:, counter].numpy()
    assert scipy.stats.kstest(found, "uniform").pvalue > LEAST


def test_numbers_of_one_sample_are_uniform() -> None:
    assert scipy.stats.kstest(uniforms(of_samples()[7:8], 20_000)[0].numpy(), "uniform").pvalue > LEAST


def test_all_bits_are_even() -> None:
    bits = (uniforms(of_samples(), 4) * 2.0**53).long().flatten()
    ones = torch.stack([((bits >> place) & 1).double().mean() for place in range(53)])
    assert (ones - 0.5).abs().max() < SIGMAS * 0.5 / len(bits) ** 0.5


@pytest.mark.parametrize(
    "address",
    [{"seed": 1}, {"epoch": 1}, {"dataset": 1}, {"view": 1}, {"view": 1 << 20}, {"seed": 2**31 - 1}],
)
def test_every_part_of_the_address_counts_and_leaves_no_correlation(address: dict[str, int]) -> None:
    both = torch.cat([uniforms(of_samples(), 3), uniforms(of_samples(**address), 3)], dim=1)
    correlation = torch.corrcoef(both.T).fill_diagonal_(0)
    assert correlation.abs().max() < SIGMAS / len(SAMPLES) ** 0.5


def test_streams_are_uncorrelated_and_so_are_their_normals() -> None:
    for draw in (lambda keys: uniforms(keys, 3), lambda keys: normals(keys, 4)):
        numbers = torch.cat([draw(stream(of_samples(), name)).double() for name in NAMES], dim=1)
        correlation = torch.corrcoef(numbers.T).fill_diagonal_(0)
        assert correlation.abs().max() < SIGMAS / len(SAMPLES) ** 0.5


def test_neighbouring_samples_and_neighbouring_pixels_are_uncorrelated() -> None:
    along = [uniforms(of_samples(), 1)[:, 0], normals(of_samples(), 1)[:, 0].double()]
    along += [normals(of_samples()[:1], 20_000)[0].double(), uniforms(of_samples()[:1], 20_000)[0]]
    for numbers, lag in itertools.product(along, (1, 2, 16, 28, 224, 256, 10_000)):
        pair = torch.stack([numbers[:-lag], numbers[lag:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < SIGMAS / (len(numbers) - lag) ** 0.5, lag


def test_keys_do_not_collide() -> None:
    found = [of_samples(epoch=epoch, view=view) for epoch in range(10) for view in (0, 1)]
    found += [stream(keys, name) for keys, name in itertools.product(list(found), NAMES)]
    assert len(torch.cat(found).unique()) == len(found) * len(SAMPLES)


def test_numbers_do_not_depend_on_the_company() -> None:
    keys = of_samples(seed=5, epoch=3)[:1000]
    together, alone = uniforms(keys, 9), uniforms(keys[500:501], 9)
    assert torch.equal(together[500:501], alone) and torch.equal(together[:, :4], uniforms(keys, 4))
    for count in (1, 9, 784, 2049):
        few = keys[:100]
        many = normals(few, count)
        assert torch.equal(many[70:71], normals(few[70:71], count))
        assert torch.equal(many, torch.cat([normals(few[:33], count), normals(few[33:], count)]))


def test_normals_are_normal() -> None:
    z = normals(of_samples()[:2000], 101).flatten().double()
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > LEAST
    root = len(z) ** 0.5
    assert abs(z.mean()) < SIGMAS / root
    assert abs(z.square().mean() - 1) < SIGMAS * 2**0.5 / root
    assert abs((z**3).mean()) < SIGMAS * 15**0.5 / root
    assert abs((z**4).mean() - 3) < SIGMAS * 96**0.5 / root
    share = 2 * scipy.stats.norm.sf(3)
    assert abs((z.abs() > 3).double().mean() - share) < SIGMAS * (share / len(z)) ** 0.5


def test_normals_stay_finite_at_the_ends_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[0, -1, 2**63 - 1, -(2**63)]])
    monkeypatch.setattr("pretrain.views.random._words", lambda keys, count: ends)
    found = normals(torch.zeros(1, dtype=torch.int64), 8)
    assert found.isfinite().all() and found.abs().max() < 5.9


@pytest.mark.gpu
def test_a_gpu_draws_the_same_bits() -> None:
    keys = of_samples()[:3000]
    there = sample_keys(0, 0, 0, SAMPLES[:3000].to("cuda"), 0)
    assert torch.equal(there.cpu(), keys)
    assert torch.equal(uniforms(stream(there, "crop"), 5).cpu(), uniforms(stream(keys, "crop"), 5))
    torch.testing.assert_close(normals(there, 101).cpu(), normals(keys, 101), atol=1e-5, rtol=1e-5)
