"""Where the numbers of a map lie: a regular grid of cells in an image, and from there to any other grid.

Shape suffix: A spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import affine_transform

from data_shards.sample import Image
from finetune.fit.room import size_read
from finetune.slices import Slices
from pretrain.backbone import Backbone, Medformer


@dataclass(frozen=True)
class CellMap:
    """A number for each cell of a regular grid in one image.

    Attributes:
        study: number of the study in its case, from 0.
        image: its name there.
        shape: voxels of the image as it is shown to the network.
        values: float32, one axis for each of the image.
        firsts: where the centre of the first cell lies, in indices of these voxels.
        steps: voxels from one cell to the next.
    """

    study: int
    image: str
    shape: tuple[int, ...]
    values: np.ndarray
    firsts: tuple[float, ...]
    steps: tuple[float, ...]

    @property
    def on_voxels(self) -> np.ndarray:
        """Interpolated linearly at every voxel of the image as it is shown."""
        return self.on_grid(self.shape, np.eye(len(self.shape) + 1))

    def on_grid(self, shape: Sequence[int], change: np.ndarray) -> np.ndarray:
        """Interpolated linearly at every voxel of another grid.

        Args:
            shape: of the grid.
            change: from indices in the image as it is shown to indices in the grid, ``(A+1, A+1)``.

        Returns:
            float32 of that shape. Beyond the outermost cells the map goes on with them; beyond the image as it is
            shown it is 0, for the network saw nothing there.
        """
        axes = len(self.shape)
        to_shown = np.linalg.inv(change)
        to_cells = np.diag([*(1 / np.asarray(self.steps)), 1.0])
        to_cells[:axes, axes] = -np.asarray(self.firsts) / np.asarray(self.steps)
        matrix = to_cells @ to_shown
        found: np.ndarray = affine_transform(
            self.values.astype(np.float32), matrix[:axes, :axes], matrix[:axes, axes], tuple(shape), order=1,
            mode="nearest",
        )  # fmt: skip
        grid = np.ogrid[tuple(slice(length) for length in shape)]
        for axis, length in enumerate(self.shape):
            place = sum(factor * along for factor, along in zip(to_shown[axis, :axes], grid, strict=True))
            place = place + to_shown[axis, axes]
            found *= (place > -0.5 - _ROUNDING) & (place < length - 0.5 + _ROUNDING)
        return found


_ROUNDING = 1e-3


def token_grid(backbone: Backbone, image: Image) -> tuple[int, ...]:
    """How many tokens an image has along each axis."""
    return backbone.cells(size_read(backbone, image))


def of_tokens(backbone: Backbone, study: int, name: str, image: Image, values_T: np.ndarray) -> CellMap:
    """A map with a number for each token of an image, in their order.

    The tokens of a network of others are taken to share its image evenly.
    """
    size, shape = np.array(size_read(backbone, image)), image.pixels.shape[1:]
    grid = token_grid(backbone, image)
    if isinstance(backbone, Medformer):
        stride, offset = np.full(len(grid), backbone.adapter.stem.stride), backbone.adapter.stem.offset
    else:
        stride = size / np.array(grid)
        offset = (stride - 1) / 2
    # Voxels of the image for one that the network reads: the extent is the same.
    scales = np.array(shape) / size
    firsts = ((offset + 0.5) * scales - 0.5).tolist()
    steps = (stride * scales).tolist()
    return CellMap(study, name, shape, values_T.reshape(grid).astype(np.float32), tuple(firsts), tuple(steps))


def of_whole(study: int, name: str, image: Image, value: float) -> CellMap:
    """A map of one cell, which is the image."""
    shape = image.pixels.shape[1:]
    firsts = tuple((length - 1) / 2 for length in shape)
    return CellMap(study, name, shape, np.full((1,) * len(shape), value, np.float32), firsts, tuple(map(float, shape)))


def of_volumes(maps: Sequence[CellMap], slices: Slices, lengths: Sequence[int]) -> list[CellMap]:
    """Maps of the slices of volumes as maps of the volumes.

    Args:
        maps: of every image of every slice of a case.
        slices: how volumes were cut.
        lengths: of each volume of the case along the axis that was cut, in their order.
    """
    found, start, axis = [], 0, slices.axis
    for study, length in enumerate(lengths):
        places = slices.places(length)
        mine = [each for each in maps if start <= each.study < start + len(places)]
        for name in dict.fromkeys(each.image for each in mine):
            stack = [each for each in mine if each.image == name]
            firsts, steps = list(stack[0].firsts), list(stack[0].steps)
            firsts.insert(axis, float(places[0]))
            steps.insert(axis, float(slices.every))
            values = np.stack([each.values for each in stack], axis=axis)
            shape = (*stack[0].shape[:axis], length, *stack[0].shape[axis:])
            found.append(CellMap(study, name, shape, values, tuple(firsts), tuple(steps)))
        start += len(places)
    return found


def averaged(said: Sequence[Sequence[CellMap]]) -> list[CellMap]:
    """The mean of the maps of the members of an ensemble."""
    first = said[0]
    if len(said) == 1:
        return list(first)
    stacks = [np.stack([maps[place].values for maps in said]) for place in range(len(first))]
    return [replace(each, values=stack.mean(axis=0)) for each, stack in zip(first, stacks, strict=True)]
