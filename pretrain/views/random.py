"""Random numbers that are a pure function of (seed, epoch, dataset, sample, view, stream), on any device.

A counter-based generator in the sense of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011):
nothing is stepped, each number is a hash of its address. The hash chains the finaliser of SplitMix64 (Steele et al.,
OOPSLA 2014). It is computed in 64-bit integers on the device of the keys, where products wrap around; so a number is
the same on a CPU and on a GPU, in any batch and on any number of workers.

Of an address nothing but its keys is computed on the host, a few words for a batch.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = (1 << 64) - 1
_BLOCK = 1 << 16
"""Words that a CPU makes at a time, so that they stay in its cache."""


def sample_keys(seed: int, epoch: int, dataset: int, samples_B: Tensor, view: int) -> Tensor:
    """One 64-bit key per sample, int64 of shape ``B`` on the device of ``samples_B``.

    Args:
        seed: of the run.
        epoch: so that each epoch augments anew.
        dataset: position of the dataset in the mixture.
        samples_B: index of each sample in its dataset, int64.
        view: 0, 1, ...; other purposes of the same sample take other numbers.
    """
    key = 0
    for word in (seed, epoch, dataset, view):
        key = _mix_word((key + _GOLDEN) ^ _mix_word(word))
    return _mix(_mix(samples_B + _signed(_GOLDEN)) ^ _signed(key + _GOLDEN))


@functools.cache
def stream_word(name: str) -> int:
    """What a named stream is addressed by: 64 bits of BLAKE2b of its name, mixed; as a signed integer.

    It depends on the name alone: a stream that is added changes none that is there.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return _signed(_mix_word(int.from_bytes(digest, "little")))


def stream_words(names: Sequence[str], device: torch.device) -> Tensor:
    """The words of several streams, ``S``, for :func:`streams`."""
    return torch.tensor([stream_word(name) for name in names], dtype=torch.int64).to(device, non_blocking=True)


def stream(keys: Tensor, name: str) -> Tensor:
    """The keys of a named stream, unrelated to those of every other name.

    Args:
        keys: of samples and views, int64 of any shape.
        name: of the transform or purpose that draws.
    """
    return _mix((keys + _signed(_GOLDEN)) ^ stream_word(name))


def streams(keys_B: Tensor, words_S: Tensor) -> Tensor:
    """The keys of several streams at once, ``B, S``; each column is what :func:`stream` gives.

    Args:
        keys_B: of samples and views.
        words_S: of the streams, see :func:`stream_word`.
    """
    return _mix((keys_B + _signed(_GOLDEN))[:, None] ^ words_S)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """``count`` numbers in [0, 1) for each key, ``..., count`` float64 with 53 random bits."""
    words = _words(keys, count)
    return _shifted(words, 11, words).to(torch.float64) * 2.0**-53


def normals(keys_B: Tensor, count: int) -> Tensor:
    """``count`` standard normal numbers for each key, ``B, count`` float32.

    Box and Muller (1958): each word gives two, from 24 bits of radius and 32 of angle. None is beyond 5.9, which one in
    3 x 10^8 would be.
    """
    pairs = (count + 1) // 2
    found = torch.empty(len(keys_B), 2 * pairs, device=keys_B.device, dtype=torch.float32)
    rows = max(1, _BLOCK // max(pairs, 1) if keys_B.device.type == "cpu" else len(keys_B))
    for start in range(0, len(keys_B), rows):
        words = _words(keys_B[start : start + rows], pairs)
        angle = words.to(torch.int32).to(torch.float32).mul_(2 * math.pi * 2.0**-32)
        # From 2^-25 to 1, so that the logarithm is finite.
        radius = (
            words.bitwise_right_shift_(40).to(torch.float32).add_(0.5).mul_(2.0**-24).add_(0.5).log_().mul_(-2).sqrt_()
        )
        place = found[start : start + rows]
        torch.mul(radius, angle.cos(), out=place[:, :pairs])
        torch.mul(radius, angle.sin_(), out=place[:, pairs:])
    return found[:, :count]


def _words(keys: Tensor, count: int) -> Tensor:
    """``count`` words of 64 random bits for each key, ``..., count``."""
    counters = torch.arange(1, count + 1, device=keys.device) * _signed(_GOLDEN)
    return _mix(keys[..., None] ^ counters)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64, in two pieces of memory."""
    x, spare = x.clone(), torch.empty_like(x)
    for places, factor in ((30, _M1), (27, _M2), (31, None)):
        x ^= _shifted(x, places, spare)
        if factor is not None:
            x *= _signed(factor)
    return x


def _shifted(x: Tensor, places: int, found: Tensor) -> Tensor:
    """Shifted to the right with zeros from the left, into ``found``; torch repeats the sign."""
    return torch.bitwise_right_shift(x, places, out=found).bitwise_and_((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """The number in two's complement that has the same lowest 64 bits."""
    return ((word + (1 << 63)) & _BITS) - (1 << 63)


def _mix_word(x: int) -> int:
    x &= _BITS
    x = ((x ^ (x >> 30)) * _M1) & _BITS
    x = ((x ^ (x >> 27)) * _M2) & _BITS
    return x ^ (x >> 31)
