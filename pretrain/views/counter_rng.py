"""Random numbers that are a pure function of (seed, epoch, sample, view): the same on any number of workers.

A counter-based generator in the sense of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011):
nothing is stepped, each number is a hash of its address. The hash chains the finaliser of SplitMix64 (Steele et al.,
OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_BELOW_ONE = np.float32(1 - 2**-24)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def sample_keys(seed: int, epoch: int, dataset: int, samples_B: np.ndarray, view: int) -> np.ndarray:
    """One 64-bit key per sample, shape ``B``.

    Args:
        seed: of the run.
        epoch: so that each epoch augments anew.
        dataset: position of the dataset in the mixture.
        samples_B: index of each sample in its dataset.
        view: 0, 1, ...; other purposes of the same sample take other numbers.
    """
    with np.errstate(over="ignore"):
        key = np.zeros(1, dtype=np.uint64)
        for word in (seed, epoch, dataset, view):
            key = _mix((key + _GOLDEN) ^ _mix(np.full(1, word % 2**64, dtype=np.uint64)))
        return _mix((key + _GOLDEN) ^ _mix(samples_B.astype(np.uint64) + _GOLDEN))


def uniforms(keys_B: np.ndarray, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for each key, ``B, count`` float64 with 53 random bits."""
    with np.errstate(over="ignore"):
        counters = (np.arange(1, count + 1, dtype=np.uint64)) * _GOLDEN
        bits = _mix(_mix(keys_B[:, None] + counters[None, :]))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(keys_B: np.ndarray, count: int) -> np.ndarray:
    """``count`` standard normal numbers for each key, ``B, count`` float32 (Box-Muller)."""
    half = (count + 1) // 2
    # Rounding to float32 can reach 1, whose normal number is infinite.
    u = np.minimum(uniforms(keys_B, 2 * half).astype(np.float32), _BELOW_ONE)
    radius = np.sqrt(-2.0 * np.log1p(-u[:, :half]))
    angle = np.float32(2 * np.pi) * u[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]
