from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d, map_coordinates

from data_shards.prepare import resample
from data_shards.prepare.resample import to_shape, to_spacing
from data_shards.sample import Image
from data_shards.support.errors import DataError

INTEGERS = [np.dtype(code) for code in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i2")]
FLOATS = [np.dtype(code) for code in ("f2", "f4", "f8", ">f4")]


def oracle(pixels: np.ndarray, shape: tuple[int, ...], factors: tuple[float, ...], *, order: int = 1) -> np.ndarray:
    """The same by SciPy: filter axis by axis, then look up the coordinates of the new centres."""
    coordinates = np.meshgrid(
        *(
            (old - 1) / 2 + (np.arange(new) - (new - 1) / 2) * factor
            for old, new, factor in zip(pixels.shape[1:], shape, factors, strict=True)
        ),
        indexing="ij",
    )
    channels = []
    for channel in pixels.astype(np.float64):
        filtered = channel
        for axis, factor in enumerate(factors):
            if order and factor > 1:
                sigma = math.sqrt((factor**2 - 1) / (8 * math.log(2)))
                filtered = gaussian_filter1d(filtered, sigma, axis, mode="nearest", truncate=4.0)
        channels.append(map_coordinates(filtered, coordinates, order=order, mode="nearest"))
    return np.stack(channels)


@st.composite
def cases(draw: st.DrawFn, *, highest_factor: float = 6.0) -> tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]:
    axes = draw(st.integers(2, 3))
    shape = draw(st.tuples(*[st.integers(1, 14)] * axes))
    old = draw(st.tuples(*[st.floats(0.3, 4)] * axes))
    factors = draw(st.tuples(*[st.floats(0.2, highest_factor) | st.just(1.0)] * axes))
    # No new voxel is larger than the whole image, and no grid is so nearly the old one that it is left as it is.
    factors = tuple(1.0 if abs(f - 1) < 1e-3 else min(f, n) for f, n in zip(factors, shape, strict=True))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(draw(st.integers(1, 3)), *shape)) * 100
    return pixels, old, tuple(spacing * factor for spacing, factor in zip(old, factors, strict=True))


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([1, 200, 8 << 20]))
def test_spacing_agrees_with_scipy_for_every_size_of_pieces(case: tuple, piece_bytes: int) -> None:
    pixels, old, new = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_PIECE_BYTES", piece_bytes)
        result = to_spacing(Image(pixels, spacing_mm=old), new)
    factors = tuple(after / before for after, before in zip(new, old, strict=True))
    shape = tuple(max(1, round(n / f)) for n, f in zip(pixels.shape[1:], factors, strict=True))
    assert result.spacing_mm == new and result.pixels.shape == (len(pixels), *shape)
    assert result.pixels == pytest.approx(oracle(pixels, shape, factors), abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(cases(), st.tuples(*[st.integers(1, 20)] * 3))
def test_resizing_agrees_with_scipy_and_scales_the_spacing(case: tuple, size: tuple) -> None:
    pixels, old, _ = case
    shape = size[: pixels.ndim - 1]
    result = to_shape(Image(pixels, spacing_mm=old), shape)
    factors = tuple(before / after for before, after in zip(pixels.shape[1:], shape, strict=True))
    assert result.pixels == pytest.approx(oracle(pixels, shape, factors), abs=1e-9)
    extent = np.multiply(result.spacing_mm, shape)
    assert extent == pytest.approx(np.multiply(old, pixels.shape[1:]))
    assert to_shape(Image(pixels), shape).spacing_mm == ()


@settings(max_examples=80, deadline=None)
@given(cases())
def test_masks_take_the_nearest_voxel_as_scipy_does(case: tuple) -> None:
    pixels, old, new = case
    ids = (np.abs(pixels) * 1000 % 256).astype(np.uint8)
    # Where two voxels are equally near either is right: the grid is moved by less than rounding can tell.
    new = tuple(spacing * 1.00137 for spacing in new)
    result = to_spacing(Image(ids, spacing_mm=old), new, nearest=True).pixels
    factors = tuple(after / before for after, before in zip(new, old, strict=True))
    axes = [
        (n - 1) / 2 + (np.arange(m) - (m - 1) / 2) * f
        for n, m, f in zip(ids.shape[1:], result.shape[1:], factors, strict=True)
    ]
    clear = np.ix_(*(np.abs(at % 1 - 0.5) > 1e-6 for at in axes))
    expected = oracle(ids, result.shape[1:], factors, order=0)
    assert result.dtype == np.uint8
    for channel, own in zip(expected, result, strict=True):
        assert (own[clear] == channel[clear]).all()


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ramp_is_reproduced_exactly_in_millimetres(axis: int, factor: float) -> None:
    """Values are twelve times the distance from the middle of the field of view; a symmetric filter keeps lines."""
    shape = [5, 6, 7]
    shape[axis] = 48
    distance = (np.arange(48) - 23.5) * 12
    ramp = np.broadcast_to(distance.reshape([-1 if a == axis else 1 for a in range(3)]), shape).astype(np.int16)
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = factor
    result = to_spacing(Image(ramp[None], spacing_mm=(1.0, 1.0, 1.0)), spacing).pixels
    line = np.moveaxis(result[0], axis, 0)
    count = round(48 / factor)
    expected = (np.arange(count) - (count - 1) / 2) * factor * 12
    inner = slice(12, -12) if factor < 1 else slice(5, -5)
    assert line.shape[0] == count and result.dtype == np.int16
    assert (line[inner] == expected[inner, None, None]).all()


@pytest.mark.parametrize("spacing", [1.5, 2.0, (2.0, 0.7, 1.1)])
def test_the_volume_of_a_sphere_stays_within_two_percent(spacing: float | tuple[float, ...]) -> None:
    old, radius = (2.0, 0.9, 1.2), 18.0
    shape = [round(50 / step) for step in old]
    places = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, old, strict=True)), indexing="ij")
    inside = np.sqrt(sum(place**2 for place in places)) <= radius
    truth = 4 / 3 * math.pi * radius**3
    image = to_spacing(Image(np.where(inside, 1000, -1000).astype(np.int16)[None], spacing_mm=old), spacing)
    mask = to_spacing(Image(inside.astype(np.uint8)[None], spacing_mm=old), spacing, nearest=True)
    assert (image.pixels > 0).sum() * math.prod(image.spacing_mm) == pytest.approx(truth, rel=0.02)
    assert mask.pixels.sum() * math.prod(mask.spacing_mm) == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS, ids=str)
def test_every_dtype_is_kept_rounded_and_never_wraps(dtype: np.dtype) -> None:
    low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind != "f" else (-1e307, 1e307)
    if dtype.kind == "f" and dtype.itemsize < 8:
        low, high = np.finfo(dtype).min, np.finfo(dtype).max
    checks = np.indices((9, 9)).sum(axis=0) % 2 == 0
    pixels = np.where(checks, np.array(high, dtype), np.array(low, dtype))[None].astype(dtype)
    for size in (5, 6, 7, 14, 23):
        result = to_shape(Image(pixels), size).pixels
        assert result.dtype == dtype and np.isfinite(result.astype(np.float64)).all()
        top = to_shape(Image(np.full((1, 9, 9), high, dtype)), size).pixels
        assert top.astype(np.float64) == pytest.approx(float(high))
    if dtype.kind != "f":
        small = np.random.default_rng(0).integers(0, 100, (1, 9, 9)).astype(dtype)
        exact = oracle(small, (14, 5), (9 / 14, 9 / 5))
        assert (to_shape(Image(small), (14, 5)).pixels == np.rint(exact)).all()


def test_the_same_grid_leaves_the_bytes_as_they_are() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    header = (1.0, float(np.float32(0.9)), 2.0)
    for result in (
        to_spacing(Image(pixels, spacing_mm=header), (1.0, 0.9, 2.0)),
        to_spacing(Image(pixels, spacing_mm=header), (1.0, 0.9, 2.0), nearest=True),
        to_shape(Image(pixels, spacing_mm=header), (5, 6, 7)),
    ):
        assert result.pixels.tobytes() == pixels.tobytes()
    assert to_spacing(Image(pixels, spacing_mm=header), (1.0, 0.9, 2.0)).spacing_mm == (1.0, 0.9, 2.0)


def test_one_voxel_stands_for_an_image_that_is_smaller_than_it() -> None:
    pixels = np.arange(20.0).reshape(1, 4, 5)
    result = to_spacing(Image(pixels, spacing_mm=(1e-3, 1e-300)), 1e4)
    assert result.pixels.shape == (1, 1, 1) and result.spacing_mm == (1e4, 1e4)
    assert result.pixels.item() == pytest.approx(pixels.mean())


@pytest.mark.parametrize(
    "image, spacing, message",
    [
        (Image(np.zeros((1, 4, 4))), 1.0, "spacing is not known"),
        (Image(np.zeros((1, 4, 4)), spacing_mm=(1, 1)), (1.0, 1.0, 1.0), r"spacing_mm has 3 numbers.*has 2 axes"),
        (Image(np.zeros((1, 4, 4)), spacing_mm=(1, 0)), 1.0, "not a positive distance"),
        (Image(np.zeros((1, 4, 4)), spacing_mm=(1, -1)), 1.0, "not a positive distance"),
        (Image(np.zeros((1, 4, 4)), spacing_mm=(1, math.inf)), 1.0, "not a positive distance"),
        (Image(np.zeros((1, 4, 4)), spacing_mm=(1, math.nan)), 1.0, "not a positive distance"),
        (Image(np.zeros((1, 4, 4)), spacing_mm=(1, 1e300)), 1e-9, "at most 65536 are accepted along an axis"),
        (Image(np.zeros((1, 4, 4, 4)), spacing_mm=(1, 1, 1)), 1 / 200, "4096000000 bytes; at most 2147483648"),
        (Image(np.zeros((3, 4, 4, 4), "u1"), spacing_mm=(1, 1, 1)), 1 / 250, "3000000000 bytes; at most 2147483648"),
    ],
)
def test_what_cannot_be_resampled_is_refused(image: Image, spacing: float | tuple[float, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_spacing(image, spacing)


def test_a_plane_that_takes_too_much_memory_on_the_way_is_refused() -> None:
    thin = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (1, 1, 40000, 2))
    assert to_shape(Image(thin), (1, 20, 2)).pixels.shape == (1, 1, 20, 2)
    wide = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (1, 2, 1, 1))
    with pytest.raises(DataError, match="bytes for one plane"):
        to_shape(Image(wide), (1, 40000, 40000))


@pytest.mark.parametrize(
    "old, new",
    [
        ((160, 160, 160), (150, 150, 150)),
        ((64, 600, 1), (64, 1, 600)),  # in the wrong order of axes 64 x 600 x 600 values lie between
        ((64, 1, 600), (64, 600, 1)),
    ],
)
def test_resampling_holds_no_float64_copy_of_the_volume(
    old: tuple[int, ...], new: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "_PIECE_BYTES", 1 << 20)
    pixels = np.zeros((1, *old), np.uint8)
    tracemalloc.start()
    to_shape(Image(pixels), new)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < math.prod(new) + (5 << 20)
