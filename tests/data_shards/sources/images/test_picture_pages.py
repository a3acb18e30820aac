"""Pictures that hold more than one, and pixels with a sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from data_shards.sources.images.picture import picture_frames, read_picture
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.make import images

RAMP = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)
PAGES = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)


def test_of_a_jpeg_with_further_pictures_the_first_is_read(tmp_path: Path):
    preview = PIL.Image.fromarray(RAMP[::2, ::2])
    PIL.Image.fromarray(RAMP).save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=[preview], quality=95)
    with PIL.Image.open(tmp_path / "p.jpg") as picture:
        assert picture.n_frames == 2
        first = np.asarray(picture)
    assert picture_frames(tmp_path / "p.jpg", "depth") == 1
    np.testing.assert_array_equal(read_picture(tmp_path / "p.jpg").pixels[0], first)
    assert len(images(tmp_path, frames="all")) == 1


def test_the_pages_of_a_tiff_are_slices_or_frames(tmp_path: Path):
    tifffile.imwrite(tmp_path / "p.tif", PAGES, photometric="minisblack")
    np.testing.assert_array_equal(images(tmp_path).sample(0).image.pixels[0], PAGES)
    with pytest.raises(DataError, match="4 frames; frames: first or frames: all"):
        images(tmp_path, pages="frames").sample(0)
    source = images(tmp_path, pages="frames", frames="all")
    assert len(source) == 4
    for sample, page in zip(source, PAGES, strict=True):
        np.testing.assert_array_equal(sample.image.pixels[0], page)


def test_what_imagej_calls_frames_is_no_depth(tmp_path: Path):
    tifffile.imwrite(tmp_path / "t.tif", PAGES, imagej=True, metadata={"axes": "TYX"})
    assert picture_frames(tmp_path / "t.tif", "depth") == 4
    tifffile.imwrite(tmp_path / "z.tif", PAGES, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_picture(tmp_path / "z.tif").pixels[0], PAGES)
    tifffile.imwrite(tmp_path / "tz.tif", PAGES.reshape(2, 2, 5, 6), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match="slices and frames"):
        read_picture(tmp_path / "tz.tif")


def test_a_thumbnail_is_no_slice(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(RAMP, photometric="minisblack")
        writer.write(RAMP[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_picture(tmp_path / "p.tif").pixels, RAMP[None])


@pytest.mark.parametrize("dtype", ["i1", "i2"])
def test_the_sign_of_pixels_stays(tmp_path: Path, dtype: str):
    values = np.array([[-100, -1, 0], [1, 50, 127]], dtype)
    tifffile.imwrite(tmp_path / "p.tif", values, photometric="minisblack")
    pixels = read_picture(tmp_path / "p.tif").pixels
    np.testing.assert_array_equal(pixels[0], values)
    assert pixels.dtype == np.dtype(dtype)


@pytest.mark.parametrize("form, suffix", [("GIF", "gif"), ("BMP", "bmp"), ("WEBP", "webp")])
def test_other_common_formats_are_read(tmp_path: Path, form: str, suffix: str):
    lossless = {"lossless": True} if form == "WEBP" else {}
    PIL.Image.fromarray(RAMP).save(tmp_path / f"p.{suffix}", form, **lossless)
    pixels = images(tmp_path, channels=1).sample(0).image.pixels
    np.testing.assert_array_equal(pixels, RAMP[None])


def test_bytes_behind_a_png_are_told(tmp_path: Path):
    PIL.Image.fromarray(RAMP).save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png").notes == ()
    (tmp_path / "p.png").write_bytes((tmp_path / "p.png").read_bytes() + bytes(100))
    image = read_picture(tmp_path / "p.png")
    np.testing.assert_array_equal(image.pixels, RAMP[None])
    assert "bytes follow" in image.notes[0]
