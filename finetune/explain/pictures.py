"""A map laid over its image, as a picture to look at."""

from __future__ import annotations

import io
import math

import numpy as np
import PIL.Image

from finetune.explain.space import CellMap
from finetune.images import Study

SLICES = 8
"""Of a volume so many slices are shown."""
_LEAST_SIDE, _MOST_SIDE = 160, 480
FOR, AGAINST = (0xFF, 0x8A, 0x1F), (0x2F, 0x8F, 0xE0)
"""Colours, RGB, of what speaks for the class and against it."""
_OPACITY = 0.7


def picture(said: CellMap, study: Study, scale: float) -> bytes:
    """PNG: a plane, and right of it the plane with the map over it; of a volume slices, from the first to the last.

    What speaks for the class is orange, what speaks against it blue.

    Args:
        said: the map.
        study: of which it is.
        scale: the value, and its negative, at which the colours end, see :mod:`finetune.explain.strength`.
    """
    pixels, values = study.images[said.image].pixels, said.on_voxels
    if len(said.shape) == 2:
        planes, columns = [(pixels, values)], 2
    else:
        depth = said.shape[0]
        places = np.unique(np.linspace(0, depth - 1, min(SLICES, depth)).round().astype(int)).tolist()
        planes = [(pixels[:, place], values[place]) for place in places]
        columns = 2 * math.ceil(math.sqrt(len(planes) / 2))
    tiles = [tile for plane, shown in planes for tile in (_grey(plane), overlay(plane, shown / scale))]
    whole = _montage([_resized(tile, columns) for tile in tiles], columns)
    content = io.BytesIO()
    PIL.Image.fromarray(whole).save(content, "PNG", optimize=True)
    return content.getvalue()


def overlay(pixels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """RGB of a plane ``C,H,W`` uint8 with a map ``H,W`` over it, of which 1 and -1 are the ends of the scale."""
    opacity = _OPACITY * np.clip(np.abs(shares), 0, 1)[..., None]
    colour = np.where(shares[..., None] > 0, FOR, AGAINST)
    found: np.ndarray = np.rint(_grey(pixels) * (1 - opacity) + colour * opacity).astype(np.uint8)
    return found


def _grey(pixels: np.ndarray) -> np.ndarray:
    """RGB of a plane; of channels that are not three the first."""
    channels = pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, axis=0)
    return np.moveaxis(channels, 0, -1)


def _resized(tile: np.ndarray, columns: int) -> np.ndarray:
    """Small ones by a whole factor, so that pixels stay pixels; large ones so that a row of them is not too wide."""
    side = max(tile.shape[:2])
    if side < _LEAST_SIDE // columns * 2:
        factor = math.ceil(_LEAST_SIDE // columns * 2 / side)
        return tile.repeat(factor, axis=0).repeat(factor, axis=1)
    if side > _MOST_SIDE // columns * 2:
        size = [max(1, length * (_MOST_SIDE // columns * 2) // side) for length in reversed(tile.shape[:2])]
        return np.asarray(PIL.Image.fromarray(tile).resize((size[0], size[1]), PIL.Image.Resampling.BILINEAR))
    return tile


def _montage(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    rows, (height, width, _) = math.ceil(len(tiles) / columns), tiles[0].shape
    whole = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 128, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + 2), number % columns * (width + 2)
        whole[top : top + height, left : left + width] = tile
    return whole
