from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import find_objects
from skimage.util import crop

from data_shards.prepare.crop import cut, cut_or_pad, foreground_box
from data_shards.sample import Image
from data_shards.support.errors import DataError

SHAPES = hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=9)


@given(hnp.arrays(np.int16, SHAPES, elements=st.integers(-3, 3), fill=st.just(-3)), st.integers(-2, 2))
def test_the_box_is_that_of_scipy(pixels: np.ndarray, threshold: int) -> None:
    found = find_objects((pixels > threshold).any(axis=0).astype(int))
    expected = found[0] if found else tuple(slice(0, size) for size in pixels.shape[1:])
    assert foreground_box([Image(pixels)], threshold, 0) == expected


@pytest.mark.parametrize("margin, expected", [(0, (3, 5, 2, 3)), (1, (2, 6, 1, 4)), (4, (0, 8, 0, 4))])
def test_the_margin_ends_where_the_image_does(margin: int, expected: tuple[int, ...]) -> None:
    pixels = np.zeros((1, 8, 4), np.uint8)
    pixels[0, 3:5, 2] = 9
    top, bottom, left, right = expected
    image = Image(pixels, spacing_mm=(1.0, 2.0))
    box = foreground_box([image], "mean", margin)
    assert box == (slice(top, bottom), slice(left, right))
    result = cut(image, box)
    assert (result.pixels == pixels[:, top:bottom, left:right]).all() and result.spacing_mm == (1.0, 2.0)
    assert result.pixels.flags.c_contiguous


def test_one_box_holds_the_foreground_of_every_image_against_its_own_mean() -> None:
    low, high = np.zeros((1, 10, 10), np.int16), np.full((1, 10, 10), 1000, np.int16)
    low[0, 2, 3], high[0, 7, 5] = 5, 1500
    empty = np.full((1, 10, 10), 7, np.int16)
    assert foreground_box(map(Image, [low, high, empty]), "mean", 1) == (slice(1, 9), slice(2, 7))


def test_an_image_without_foreground_stays_whole() -> None:
    assert foreground_box([Image(np.full((1, 5, 6), 0.1))], "mean", 0) == (slice(0, 5), slice(0, 6))


@given(hnp.arrays(np.int16, SHAPES, elements=st.integers(-9, 9)), st.tuples(*[st.integers(1, 12)] * 3))
def test_cutting_and_padding_is_that_of_scikit_image_and_numpy(pixels: np.ndarray, size: tuple) -> None:
    shape = size[: pixels.ndim - 1]
    changes = [(len(pixels),) * 2, *zip(pixels.shape[1:], shape, strict=True)]
    less = [((old - new) // 2, old - new - (old - new) // 2) if old > new else (0, 0) for old, new in changes]
    more = [((new - old) // 2, new - old - (new - old) // 2) if new > old else (0, 0) for old, new in changes]
    for mask, value in [(False, pixels.min()), (True, 0)]:
        expected = np.pad(crop(pixels, less), more, mode="constant", constant_values=value)
        result = cut_or_pad(Image(pixels), shape, mask=mask)
        assert (result.pixels == expected).all() and result.pixels.dtype == pixels.dtype


def test_the_shape_that_is_asked_for_leaves_the_image_as_it_is() -> None:
    image = Image(np.zeros((1, 4, 4), np.uint8))
    assert cut_or_pad(image, 4) is image and cut_or_pad(image, (4, 4)) is image


@pytest.mark.parametrize("size, message", [((4, 4, 4), "size has 3 numbers"), (65536, "at most 2147483648")])
def test_a_shape_that_cannot_be_is_refused(size: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        cut_or_pad(Image(np.zeros((1, 4, 4), np.uint8)), size)
