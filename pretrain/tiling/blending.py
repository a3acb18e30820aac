"""What a network says of windows, blended into one field over the image, in memory for one layer of windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pretrain.tiling.windows import Tiling, Window

Run = Callable[[Sequence[Window]], Tensor]
"""From windows of one size to values ``b, K`` and the cells of each."""


def blended(run: Run, tiling: Tiling, at_once: int = 1) -> Iterator[tuple[int, Tensor]]:
    """The mean of what is said of every place, weighted by the shares of the windows that cover it.

    Windows come layer by layer along the first axis, and what no later one touches is handed out. So no more is held
    than the values of one layer, whatever the depth of the image.

    Args:
        run: called with at most ``at_once`` windows of one size.
        tiling: where the windows lie.
        at_once: how many windows the network takes.

    Yields:
        The first cell along the first axis, and values ``K, cells...`` from there on in float32; one after the other
        they are the whole image.

    Raises:
        ValueError: the network gives another number of cells than the windows have.
    """
    layers = list(tiling.layers())
    begins = [tiling.cells_of(layer[0])[0].start for layer in layers]
    held: Tensor | None = None
    for layer, begin, end in zip(layers, begins, [*begins[1:], tiling.cells[0]], strict=True):
        depth = tiling.cells_of(layer[0])[0].stop - begin
        for windows in batches(layer, at_once):
            values = run(windows)
            if held is None:
                held = values.new_zeros(values.shape[1], depth, *tiling.cells[1:], dtype=torch.float32)
            for window, value in zip(windows, values, strict=True):
                _add(held, value, tiling, window)
        assert held is not None
        yield begin, held[:, : end - begin]
        following = torch.zeros_like(held)
        following[:, : held.shape[1] - (end - begin)] = held[:, end - begin :]
        held = following


def _add(held: Tensor, value: Tensor, tiling: Tiling, window: Window) -> None:
    first, *others = tiling.cells_of(window)
    expected = (first.stop - first.start, *(axis.stop - axis.start for axis in others))
    if tuple(value.shape[1:]) != expected:
        raise ValueError(f"a network that gives {tuple(value.shape[1:])} cells of a window of {expected}")
    share = torch.ones((), dtype=torch.float64)
    for factor in tiling.shares(window):
        share = share[..., None] * factor
    weight = share.to(held.device, torch.float32)
    held[(slice(None), slice(0, expected[0]), *others)] += value * weight


def batches(layer: Sequence[Window], at_once: int) -> Iterator[list[Window]]:
    """The windows of a layer, at most so many of one size at a time."""
    for _, same in itertools.groupby(sorted(layer, key=lambda window: window.size), key=lambda window: window.size):
        rest = list(same)
        for start in range(0, len(rest), at_once):
            yield rest[start : start + at_once]
