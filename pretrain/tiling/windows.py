"""Where windows lie in an image, and how much each counts at every place.

Windows lie as in nnU-Net (Isensee et al., Nature Methods 2021): so many that neighbours overlap by what is asked for at
least, at even distances, the last one ending where the image does. A weight is, as there and in MONAI's
``sliding_window_inference``, a Gaussian about the centre of the window with a standard deviation of an eighth of its
side; but it falls only towards sides where another window takes over, not towards the edge of the image, and is not
raised where it is small. So what a window counts where it ends is a fraction of what the others count there, at the
edges and in the corners too.

Windows form a grid. The weight of each, divided by that of all windows at the place, is therefore a product of one
factor for each axis, and the factors of an axis add up to one everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.support.errors import ConfigError

SIGMA = 0.125
"""Standard deviation of the weight of a window, as a fraction of its side."""


@dataclass(frozen=True)
class Window:
    """One window.

    Attributes:
        first: its first voxel along H,W or D,H,W.
        size: its voxels along each axis; the last one of an axis may have fewer than the others, by less than a step.
        place: which window it is along each axis.
    """

    first: tuple[int, ...]
    size: tuple[int, ...]
    place: tuple[int, ...]

    def of(self, images: Tensor) -> Tensor:
        """What it shows of images ``B,C,H,W`` or ``B,C,D,H,W``."""
        box = [slice(start, start + length) for start, length in zip(self.first, self.size, strict=True)]
        return images[(slice(None), slice(None), *box)]


class Tiling:
    """The windows of an image, and their weights.

    Values are blended on cells of ``step`` voxels along each axis, such as the tokens of a network or, with a step of
    one, the voxels themselves.

    Args:
        size: voxels of the image along H,W or D,H,W.
        window: voxels of a window, one number or one for each axis. Along an axis that is not longer, one window takes
            all of it.
        overlap: of neighbouring windows at least, as a fraction of their sides.
        step: windows begin at multiples of it.

    Attributes:
        size: as given.
        window: along each axis, no longer than the image.
        cells: of the image along each axis, ``ceil(size / step)``.
        step: as given.

    Raises:
        ConfigError: see :func:`check_window`; or a window of another number of axes.
    """

    def __init__(self, size: Sequence[int], window: int | Sequence[int], overlap: float = 0.5, step: int = 1) -> None:
        self.size, self.step = tuple(size), step
        self.window = within(window, self.size)
        self.cells = tuple(-(-length // step) for length in self.size)
        check_window([own for own, length in zip(self.window, self.size, strict=True) if own < length], overlap, step)
        self._sides = [-(-own // step) for own in self.window]
        self._starts = [_starts(*pair, overlap) for pair in zip(self.cells, self._sides, strict=True)]
        self._shares = [_shares(*each) for each in zip(self.cells, self._sides, self._starts, strict=True)]

    def __len__(self) -> int:
        """How many windows there are."""
        return math.prod(map(len, self._starts))

    def layers(self) -> Iterator[list[Window]]:
        """The windows by where they begin along the first axis, in the order of the image."""
        places = [list(enumerate(starts)) for starts in self._starts]
        for begin in places[0]:
            yield [self._window((begin, *others)) for others in itertools.product(*places[1:])]

    def cells_of(self, window: Window) -> tuple[slice, ...]:
        """The cells that a window covers, along each axis."""
        pairs = zip(window.first, self._sides, strict=True)
        return tuple(slice(first // self.step, first // self.step + side) for first, side in pairs)

    def shares(self, window: Window) -> list[Tensor]:
        """What a window counts at each of its cells: one factor for each axis, float64, their product is its share."""
        return [shares[number] for shares, number in zip(self._shares, window.place, strict=True)]

    def share(self, window: Window) -> float:
        """What a window counts in the mean over all cells of the image; all windows together count one."""
        each = zip(self.shares(window), self.cells, strict=True)
        return math.prod(float(share.sum()) / count for share, count in each)

    def _window(self, places: Sequence[tuple[int, int]]) -> Window:
        """The window at these places: its number along each axis, and its first cell."""
        first = tuple(start * self.step for _, start in places)
        ends = zip(first, self.window, self.size, strict=True)
        return Window(
            first, tuple(min(own, length - start) for start, own, length in ends), tuple(n for n, _ in places)
        )


def within(window: int | Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """How much of an image of such a size one window takes, along each axis.

    Raises:
        ConfigError: the window has numbers for other axes.
    """
    wanted = (window,) * len(size) if isinstance(window, int) else tuple(window)
    if len(wanted) != len(size):
        raise ConfigError(f"window {wanted}: a number of voxels for each of the {len(size)} axes is expected")
    return tuple(min(side, length) for side, length in zip(wanted, size, strict=True))


def window_of_crops(crop: Sequence[int], stride: int) -> tuple[int, ...]:
    """A window as large as the crops that a network was trained on, in whole tokens: no larger, but for one token.

    Args:
        crop: voxels along each axis.
        stride: of the network, voxels of a token along each axis.
    """
    return tuple(max(stride, side // stride * stride) for side in crop)


def check_window(sides: Sequence[int], overlap: float, step: int) -> None:
    """Refuse windows that cannot be used.

    Raises:
        ConfigError: a side that is no multiple of ``step``, or an overlap that leaves no way to the next window.
    """
    for side in sides:
        if side < 1 or side % step:
            raise ConfigError(f"window {side}: a multiple of {step}, the voxels of a token, is expected")
    if not 0 <= overlap < 1:
        raise ConfigError(f"overlap {overlap}: from 0 and below 1 is expected")


def _starts(cells: int, side: int, overlap: float) -> list[int]:
    """First cells of the windows along an axis."""
    room = cells - side
    steps = -(-room // max(1, int(side * (1 - overlap))))
    return [round(number * room / steps) for number in range(steps + 1)] if steps else [0]


def _shares(cells: int, side: int, starts: Sequence[int]) -> list[Tensor]:
    """What each window along an axis counts at its cells, float64; together they count one at every cell."""
    away = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    weights = []
    for start in starts:
        falling = away.clamp(0 if start == 0 else -side, 0 if start + side == cells else side)
        weights.append(torch.exp(-0.5 * (falling / (SIGMA * side)) ** 2))
    total = torch.zeros(cells, dtype=torch.float64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + side] += weight
    return [weight / total[start : start + side] for start, weight in zip(starts, weights, strict=True)]
