"""Layers on covariance matrices against those of spd_learn, and Newton-Schulz against eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from spd_learn.modules import BiMap, CovLayer, LogEig, ReEig
from torch import Tensor, nn

from benchmarks.interleaved import interleaved
from benchmarks.table import Table
from finetune.spd.covariance import covariance
from finetune.spd.eigen import logarithm, rectified, square_root
from finetune.spd.newton_schulz import newton_schulz
from finetune.spd.stiefel import orthonormal
from finetune.spd.vector import vectorised

PAIRS, CALLS = 41, 10
# About half of the eigenvalues are below: LogEig then has ties.
FLOOR = 0.9
# Cases, tokens of each, channels, and channels after the map.
SIZES = ((32, 196, 16, 12), (32, 196, 32, 16), (32, 784, 64, 32))
ITERATIONS = (5, 15)


def run() -> Table:
    """Medians of pairs that alternate."""
    rows = []
    for size in SIZES:
        for dtype in (torch.float32, torch.float64):
            rows.append(_network(size, dtype))
            rows += [_root(size, dtype, iterations) for iterations in ITERATIONS]
    return Table(
        title="Layers on covariance matrices",
        command="python -m benchmarks spd",
        columns=("cases, tokens, channels", "type", "first", "ms", "second", "ms", "first : second"),
        rows=tuple(rows),
        remarks=f"Forward and backward on one thread, in time of the processor; medians of {PAIRS} pairs of {CALLS} "
        "calls in turn, and the 95 % interval of the ratio. The layers are covariance, BiMap to the second number of "
        f"channels, ReEig with a floor of {FLOOR}, LogEig and the upper triangle; the weights of spd_learn "
        f"{version('spd_learn')} are plain ones, as ours are, and not its parametrisation, which would be computed at "
        "each step. Outputs and gradients of both were found equal before. The square roots are of covariances with "
        "the first number of channels; by 5 steps Newton-Schulz is not yet the root, by 15 it is up to a condition of "
        "1e3.",
    )


def _network(size: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[str, ...]:
    cases, tokens, channels, mapped = size
    torch.manual_seed(0)
    tokens_BTC = torch.randn(cases, tokens, channels, dtype=dtype)
    weight = nn.Parameter(orthonormal(channels, mapped).to(dtype))
    layer = BiMap(channels, mapped, parametrized=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    theirs = nn.Sequential(CovLayer(), layer, ReEig(FLOOR, dtype=dtype), LogEig())

    def ours(tokens_BTC: Tensor) -> Tensor:
        return vectorised(logarithm(rectified(weight.mT @ covariance(tokens_BTC) @ weight, FLOOR)))

    first = _step(ours, tokens_BTC, weight)
    second = _step(lambda x_BTC: theirs(x_BTC.mT).flatten(1), tokens_BTC, layer.weight)
    _check_equal(first(), second())
    found = interleaved(first, second, pairs=PAIRS, calls=CALLS)
    return _row(size, dtype, "medformer", found.first_s, "spd_learn", found.second_s, found.text)


def _root(size: tuple[int, int, int, int], dtype: torch.dtype, iterations: int) -> tuple[str, ...]:
    cases, tokens, channels, _ = size
    torch.manual_seed(0)
    matrix = covariance(torch.randn(cases, tokens, channels, dtype=dtype))
    first = _step(lambda x: newton_schulz(x, iterations), matrix)
    found = interleaved(first, _step(square_root, matrix), pairs=PAIRS, calls=CALLS)
    names = f"Newton-Schulz, {iterations} steps", "square root by eigenvalues"
    return _row(size, dtype, names[0], found.first_s, names[1], found.second_s, found.text)


def _step(function: Callable[[Tensor], Tensor], given: Tensor, weight: Tensor | None = None) -> Callable[[], Tensor]:
    """Forward, and backward to the input and the weight; it returns outputs and gradients as one vector."""
    given = given.clone().requires_grad_()
    leaves = [given] if weight is None else [given, weight]

    def step() -> Tensor:
        outputs = function(given)
        grads = torch.autograd.grad(outputs.square().sum(), leaves)
        return torch.cat([each.flatten() for each in (outputs.detach(), *grads)])

    return step


def _check_equal(ours: Tensor, theirs: Tensor) -> None:
    error = float((ours - theirs).norm() / theirs.norm())
    if error > 1e-4:
        raise RuntimeError(f"the layers differ by {error:.1e}, relative")


def _row(size: tuple[int, int, int, int], dtype: torch.dtype, *cells: object) -> tuple[str, ...]:
    cases, tokens, channels, mapped = size
    texts = [f"{cell * 1e3:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"{cases} x {tokens:,} x {channels} to {mapped}", str(dtype).removeprefix("torch."), *texts
