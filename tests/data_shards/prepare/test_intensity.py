from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.exposure import rescale_intensity

from data_shards.prepare import Intensity, intensity
from data_shards.prepare.intensity import ends_of, percentiles, to_8_bits
from data_shards.support.errors import DataError

DTYPES = ["u1", "i1", "u2", "i2", "i4", "u8", "f2", "f4", "f8"]


def scaled(pixels: np.ndarray, options: Intensity) -> np.ndarray:
    ends = ends_of(pixels, options)
    assert ends is not None
    return to_8_bits(pixels, ends)


@pytest.mark.parametrize("dtype", DTYPES)
def test_percentiles_are_those_of_numpy_in_float64(dtype: str) -> None:
    random = np.random.default_rng(0)
    for size in (1, 2, 7, 1000):
        values = (random.normal(size=size) * 60).clip(0 if dtype[0] == "u" else -120, 120).astype(dtype)
        for percents in [(0.0, 100.0), (0.5, 99.5), (25.0, 30.0)]:
            expected = np.percentile(values.astype(np.float64), percents)
            assert percentiles(values.reshape(1, 1, -1), percents) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", ["i1", "i8", "f2", "f4"])
def test_percentiles_of_the_whole_range_of_a_dtype_do_not_overflow(dtype: str) -> None:
    limits = np.finfo(dtype) if dtype[0] == "f" else np.iinfo(dtype)
    values = np.array([limits.min, limits.max], dtype)
    assert percentiles(values, (25.0, 75.0)) == pytest.approx((limits.min / 2, limits.max / 2), rel=0.01)
    assert scaled(values, Intensity(percentile=(0, 100))).tolist() == [0, 255]


@given(hnp.arrays(np.float32, (1, 6, 7), elements=st.floats(-2000, 2000, width=32)), st.sampled_from([1, 5, 1 << 20]))
def test_a_window_is_linear_between_its_ends_and_flat_beyond(pixels: np.ndarray, piece: int) -> None:
    expected = rescale_intensity(pixels.astype(np.float64), in_range=(-160.0, 240.0), out_range=(0.0, 255.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intensity, "_PIECE_VALUES", piece)
        result = scaled(pixels, Intensity(window=(40, 400)))
    assert result.dtype == np.uint8 and result.shape == pixels.shape
    assert np.abs(result - expected).max() <= 0.5 + 1e-9


def test_a_window_gives_these_values() -> None:
    values = np.array([-1000, -160, -159, 40, 240, 3000], np.int16)
    assert scaled(values, Intensity(window=(40, 400))).tolist() == [0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize("dtype", DTYPES)
def test_percentiles_bring_every_dtype_to_the_same_8_bits(dtype: str) -> None:
    values = np.arange(0, 101, dtype=dtype).reshape(1, 1, 101)[..., ::-1]
    result = scaled(values, Intensity(percentile=(10, 90))).reshape(-1)[::-1]
    assert result.tolist() == np.rint((np.arange(101).clip(10, 90) - 10) / 80 * 255).tolist()


def test_a_constant_image_becomes_0_and_what_is_above_the_common_percentile_255() -> None:
    both = Intensity(percentile=(0.5, 99.5))
    assert not scaled(np.full((1, 8, 8), 1234.5), both).any()
    mostly = np.zeros((1, 40, 40))
    mostly[0, 0, 0] = 3
    assert np.flatnonzero(scaled(mostly, both)).tolist() == [0] and scaled(mostly, both).max() == 255


def test_without_window_and_percentile_values_stay_as_they_are() -> None:
    assert ends_of(np.ones((1, 2, 2), np.int16), Intensity()) is None


def test_ends_without_a_distance_in_float64_are_refused() -> None:
    with pytest.raises(DataError, match="too far apart"):
        scaled(np.array([-1.7e308, 1.7e308]), Intensity(percentile=(0, 100)))
