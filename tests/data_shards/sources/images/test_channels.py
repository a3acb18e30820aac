"""Grey and colour in one dataset come to one number of channels, and nothing is lost without being asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_shards.sources.images.channels import common_channels, with_channels
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.make import images

GREY = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
COLOUR = np.dstack([GREY, GREY[::-1], 255 - GREY])


def folder(root: Path, *pictures: np.ndarray) -> Path:
    for number, pixels in enumerate(pictures):
        PIL.Image.fromarray(pixels).save(root / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "counts, common",
    [([1, 1, 3], 1), ([1, 3, 3], 3), ([1, 3], 3), ([1, 1], None), ([3, 3], None), ([1, None], None), ([], None)],
)
def test_most_images_decide(counts: list[int | None], common: int | None):
    assert common_channels(counts) == common


def test_a_grey_picture_stored_as_colour_with_alpha_is_grey_among_grey(tmp_path: Path):
    alpha = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    source = images(folder(tmp_path, GREY, GREY + 1, alpha), show_paths=True)
    assert [sample.image.pixels.shape for sample in source] == [(1, 5, 6)] * 3
    np.testing.assert_array_equal(source.sample(2).image.pixels[0], GREY)
    assert any("2 with 1 channel and 1 with 3 channels" in line and "2.png" in line for line in source.warnings)


def test_grey_among_colour_is_repeated(tmp_path: Path):
    source = images(folder(tmp_path, COLOUR, COLOUR + 1, GREY))
    np.testing.assert_array_equal(source.sample(2).image.pixels, np.stack([GREY] * 3))
    np.testing.assert_array_equal(source.sample(0).image.pixels, COLOUR.transpose(2, 0, 1))


def test_colours_among_grey_are_refused_by_name_with_what_to_do(tmp_path: Path):
    source = images(folder(tmp_path, GREY, GREY + 1, COLOUR), show_paths=True)
    with pytest.raises(DataError, match=r"2\.png: has 3 channels of different colours.*channels: 3.*channels: 1"):
        source.sample(2)


def test_the_options_are_obeyed(tmp_path: Path):
    root = folder(tmp_path, GREY, GREY + 1, COLOUR)
    assert {sample.image.pixels.shape[0] for sample in images(root, channels=3)} == {3}
    one = images(root, channels=1)
    theirs = np.asarray(PIL.Image.fromarray(COLOUR).convert("L")).astype(int)
    assert np.abs(one.sample(2).image.pixels[0].astype(int) - theirs).max() <= 1
    kept = images(root, channels="keep")
    assert [len(sample.image.pixels) for sample in kept] == [1, 1, 3] and not any("channel" in w for w in kept.warnings)


def test_sets_of_one_kind_stay_as_they_are(tmp_path: Path):
    assert {len(sample.image.pixels) for sample in images(folder(tmp_path, COLOUR, COLOUR + 1))} == {3}


def test_a_grey_palette_is_grey(tmp_path: Path):
    picture = PIL.Image.fromarray(GREY // 8, mode="P")
    picture.putpalette([value for number in range(30) for value in (255 - number,) * 3])
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(images(tmp_path).sample(0).image.pixels[0], 255 - GREY // 8)


def test_other_numbers_of_channels_are_named():
    with pytest.raises(DataError, match="has 4 channels; 1 or 3 can be brought to 3"):
        with_channels(np.zeros((4, 2, 2), np.uint8), 3, lossless=True)
