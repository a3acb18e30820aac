"""The picture of a map: every plane of the image as it is, and right of it the same with the map over it."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from data_shards.sample import Image
from finetune.explain.pictures import SLICES, overlay, picture
from finetune.explain.space import CellMap
from finetune.explain.strength import FAINT, GUESSES, NEAR, guesses, notes_on, scale_of
from finetune.images import Study
from finetune.targets import create_target


def study_of(pixels: np.ndarray) -> Study:
    return Study({"image": Image(pixels)})


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("depth", [1, 3, SLICES, 40])
def test_of_a_volume_every_slice_stands_plain_beside_itself_with_the_map(depth: int) -> None:
    side, random = 170, np.random.default_rng(0)
    pixels = random.integers(256, size=(1, depth, side, side), dtype=np.uint8)
    values = np.zeros((depth, side, side), np.float32)
    values[:, :10, :10] = 1.0
    said = CellMap(0, "image", values.shape, values, (0.0,) * 3, (1.0,) * 3)
    whole = decoded(picture(said, study_of(pixels), 1.0))
    shown = np.linspace(0, depth - 1, min(depth, SLICES)).round().astype(int)
    columns = (whole.shape[1] + 2) // (side + 2)
    assert columns % 2 == 0
    tiles = []
    for number in range(2 * len(shown)):
        top, left = number // columns * (side + 2), number % columns * (side + 2)
        tiles.append(whole[top : top + side, left : left + side])
    for place, plain, mapped in zip(shown, tiles[::2], tiles[1::2], strict=True):
        np.testing.assert_array_equal(plain, np.repeat(pixels[0, place][..., None], 3, axis=-1))
        np.testing.assert_array_equal(mapped, overlay(pixels[:, place], values[place]))
        assert (plain != mapped)[:10, :10].any() and (plain == mapped)[10:].all()


def test_a_plane_stands_beside_itself_with_the_map() -> None:
    pixels = np.random.default_rng(1).integers(256, size=(3, 200, 200), dtype=np.uint8)
    values = np.linspace(-1, 1, 200 * 200, dtype=np.float32).reshape(200, 200)
    said = CellMap(0, "image", values.shape, values, (0.0,) * 2, (1.0,) * 2)
    whole = decoded(picture(said, study_of(pixels), scale_of(values, None)))
    assert whole.shape == (200, 402, 3)
    np.testing.assert_array_equal(whole[:, :200], np.moveaxis(pixels, 0, -1))
    assert (whole[:, 202:] != whole[:, :200]).mean() > 0.5


def test_a_map_of_next_to_nothing_is_as_pale_as_it_is_empty_and_is_said_to_be() -> None:
    values = np.random.default_rng(2).uniform(-1, 1, (64, 64)).astype(np.float32)
    grey = np.full((1, 64, 64), 128, np.uint8)

    def colour(largest: float) -> float:
        """How far the picture is from the grey below it, of 255."""
        shown = values * largest
        tinted = overlay(grey, shown / scale_of(shown, float(np.abs(shown).max())))
        return float(np.abs(tinted.astype(float) - 128).max())

    assert colour(0.0021) < 3 and colour(2.1) == colour(21.0) > 70
    assert colour(NEAR / 2) == pytest.approx(colour(2.1) / 2, abs=2)
    assert scale_of(values * 1e-3, None) < 1e-3  # of shares, which have no size of their own
    assert scale_of(np.zeros((4, 4)), 0.0) == 1.0
    binary, several = create_target("binary", ["a", "b"]), create_target("multiclass", ["a", "b", "c", "d"])
    assert notes_on(binary, 0.008, 0.0021) == f"{GUESSES}; {FAINT}"
    assert notes_on(binary, 2.0, 0.5) == notes_on(binary, -2.0, None) == ""
    assert guesses(several, np.log(0.25 / 0.75)) and not guesses(several, 0.0)
    assert notes_on(create_target("regression", ["ml"]), 0.0, 0.0) == ""
