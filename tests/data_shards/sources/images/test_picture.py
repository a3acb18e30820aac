"""What the pixels of PNG, JPEG and TIFF become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from data_shards.sources.images.picture import read_picture
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def saved(path: Path, picture: PIL.Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_is_one_channel(tmp_path: Path, suffix: str):
    image = read_picture(saved(tmp_path / f"p.{suffix}", PIL.Image.fromarray(GREY)), modality=Modality.xray)
    np.testing.assert_array_equal(image.pixels, GREY[None])
    assert image.pixels.dtype == np.uint8 and image.spacing_mm == () and image.modality is Modality.xray


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colour_is_three_channels(tmp_path: Path, suffix: str):
    pixels = read_picture(saved(tmp_path / f"p.{suffix}", PIL.Image.fromarray(COLOUR))).pixels
    np.testing.assert_array_equal(pixels, COLOUR.transpose(2, 0, 1))
    assert pixels.flags.c_contiguous


def test_a_jpeg_is_what_was_stored_within_its_loss(tmp_path: Path):
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    pixels = read_picture(saved(tmp_path / "p.jpg", PIL.Image.fromarray(ramp), quality=95)).pixels
    assert pixels.shape == (1, 64, 80) and np.abs(pixels[0].astype(int) - ramp).max() <= 4


def test_a_palette_becomes_its_colours(tmp_path: Path):
    picture = PIL.Image.fromarray(GREY // 20, mode="P")
    palette = [value for number in range(12) for value in (number, 255 - number, 7 * number)]
    picture.putpalette(palette)
    pixels = read_picture(saved(tmp_path / "p.png", picture)).pixels
    np.testing.assert_array_equal(pixels, np.array(palette, np.uint8).reshape(-1, 3)[GREY // 20].transpose(2, 0, 1))


def test_an_alpha_channel_is_dropped_and_what_lies_under_it_stays(tmp_path: Path):
    clear = np.dstack([COLOUR, np.zeros_like(GREY)])
    np.testing.assert_array_equal(
        read_picture(saved(tmp_path / "p.png", PIL.Image.fromarray(clear))).pixels, COLOUR.transpose(2, 0, 1)
    )
    grey = np.dstack([GREY, 255 - GREY])
    np.testing.assert_array_equal(
        read_picture(saved(tmp_path / "q.png", PIL.Image.fromarray(grey, mode="LA"))).pixels, GREY[None]
    )


def test_a_transparent_colour_of_a_png_is_a_colour(tmp_path: Path):
    path = saved(tmp_path / "p.png", PIL.Image.fromarray(GREY), transparency=20)
    np.testing.assert_array_equal(read_picture(path).pixels, GREY[None])


def test_printing_colours_become_rgb(tmp_path: Path):
    inks = np.zeros((2, 2, 4), np.uint8)
    inks[0, 0] = (255, 0, 0, 0)
    inks[1, 1] = (0, 0, 0, 255)
    pixels = read_picture(saved(tmp_path / "p.tif", PIL.Image.fromarray(inks, mode="CMYK"))).pixels
    np.testing.assert_array_equal(pixels[:, 0, 0], [0, 255, 255])
    np.testing.assert_array_equal(pixels[:, 1, 1], [0, 0, 0])
    np.testing.assert_array_equal(pixels[:, 0, 1], [255, 255, 255])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_black_and_white_becomes_0_and_255(tmp_path: Path, suffix: str):
    picture = PIL.Image.fromarray(GREY > 100)
    assert picture.mode == "1"
    pixels = read_picture(saved(tmp_path / f"p.{suffix}", picture)).pixels
    np.testing.assert_array_equal(pixels[0], np.where(GREY > 100, 255, 0))
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_them(tmp_path: Path, suffix: str):
    deep = GREY.astype(np.uint16) * 257 + 3
    pixels = read_picture(saved(tmp_path / f"p.{suffix}", PIL.Image.fromarray(deep))).pixels
    np.testing.assert_array_equal(pixels, deep[None])
    assert pixels.dtype == np.uint16 and pixels.dtype.isnative


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u4", "f4"])
def test_the_dtypes_of_tiff_in_both_byte_orders(tmp_path: Path, dtype: str, order: str):
    values = np.array([[0, 1, 2], [3, 100, 120]], dtype) * np.array(1 if dtype == "u1" else 100, dtype)
    if dtype == "u4":
        values[1, 2] = 2**32 - 5
    if dtype == "i4":
        values[1, 2] = -(2**31) + 5
    tifffile.imwrite(tmp_path / "p.tif", values, byteorder=order, photometric="minisblack")
    if (order, dtype) == (">", "u4"):  # Pillow has no decoder for them
        with pytest.raises(DataError, match="cannot be decoded"):
            read_picture(tmp_path / "p.tif")
        return
    pixels = read_picture(tmp_path / "p.tif").pixels
    np.testing.assert_array_equal(pixels[0], values)
    assert pixels.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_zero_for_white_is_turned_round(tmp_path: Path, dtype: str):
    values = (np.arange(6, dtype=dtype) * 30).reshape(2, 3)
    tifffile.imwrite(tmp_path / "p.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels[0], np.iinfo(dtype).max - values)


def test_zero_for_white_of_floats_is_refused(tmp_path: Path):
    tifffile.imwrite(tmp_path / "p.tif", np.ones((2, 3), np.float32), photometric="miniswhite")
    with pytest.raises(DataError, match="zero for white in float32"):
        read_picture(tmp_path / "p.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_of_a_tiff_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    tifffile.imwrite(tmp_path / "p.tif", np.array([[0, value]], np.float32))
    with pytest.raises(DataError, match="not finite"):
        read_picture(tmp_path / "p.tif")


# EXIF 2.32, tag 274: where the first row and the first column of the stored pixels are to be shown.
TURNS = {
    1: lambda values: values,
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = saved(tmp_path / f"p.{suffix}", PIL.Image.fromarray(GREY), exif=exif)
    np.testing.assert_array_equal(read_picture(path).pixels[0], TURNS[orientation](GREY))


def test_the_pages_of_a_tiff_are_the_slices_of_a_volume(tmp_path: Path):
    volume = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4) * 1000
    tifffile.imwrite(tmp_path / "p.tif", volume, photometric="minisblack")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels, volume[None])


def test_pages_of_colour_are_channels_then_slices(tmp_path: Path):
    volume = np.stack([COLOUR, COLOUR[::-1]])
    tifffile.imwrite(tmp_path / "p.tif", volume, photometric="rgb")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels, volume.transpose(3, 0, 1, 2))


def test_turned_pages_are_turned_one_by_one(tmp_path: Path):
    exif = PIL.Image.Exif()
    exif[274] = 6
    pages = [PIL.Image.fromarray(GREY + step) for step in (0, 1)]
    for page in pages:
        page.getexif()[274] = 6
    path = saved(tmp_path / "p.tif", pages[0], save_all=True, append_images=pages[1:], exif=exif)
    pixels = read_picture(path).pixels
    assert pixels.shape == (1, 2, 4, 3)
    np.testing.assert_array_equal(pixels[0, 1], np.rot90(GREY + 1, -1))


@pytest.mark.parametrize("second", [GREY[:2], GREY.astype(np.uint16), COLOUR])
def test_pages_that_differ_are_refused(tmp_path: Path, second: np.ndarray):
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(GREY)
        writer.write(second)
    with pytest.raises(DataError, match="pages of different sizes or modes"):
        read_picture(tmp_path / "p.tif")


def test_big_tiff_is_read(tmp_path: Path):
    tifffile.imwrite(tmp_path / "p.tif", GREY, bigtiff=True)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels[0], GREY)


def test_the_content_decides_and_not_the_name(tmp_path: Path):
    saved(tmp_path / "p.png", PIL.Image.fromarray(GREY)).rename(tmp_path / "p.jpg")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.jpg").pixels[0], GREY)
