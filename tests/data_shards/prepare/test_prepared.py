from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data_shards.card import DatasetCard
from data_shards.prepare import Preparation, Prepared
from data_shards.sample import MASK, Image, Sample
from data_shards.sources.base import Skipped, Source
from data_shards.support.documents import apply_overrides, parse
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Modality, Organ, Task
from tests.data_shards.made_sources import card


class Studies(Source):
    """Studies that are given, with everything that a source may say of them."""

    duplicates = "drop"

    def __init__(self, *studies: dict[str, Image], note: str = "") -> None:
        self.card = card().model_copy(update={"note": note, "official": not note})
        self.skipped = [Skipped("file 9", "not an image")]
        self.warnings = ["text may be burned in"]
        self._studies = studies

    def __len__(self) -> int:
        return len(self._studies)

    def sample(self, position: int) -> Sample:
        images = self._studies[position]
        label, attributes = np.array([position]), {"age_years": 50.0 + position}
        subject = f"s{position}"
        return Sample(f"k{position}", images, Organ.brain, subject, "train", label, Task.binary, attributes)

    def name_of(self, position: int) -> str:
        return f"row {position + 1} of the table"

    def origin(self, position: int) -> dict[str, str]:
        return {"key": f"k{position}", "path": f"{position}.png"}


def options(**values: Any) -> Preparation:
    return parse(Preparation, values, "options")


def prepared(images: dict[str, Image], **values: Any) -> dict[str, Image]:
    return dict(Prepared(Studies(images), options(**values)).sample(0).images)


def volume(*shape: int, spacing: Sequence[float] = (), dtype: type = np.int16, blob: Sequence[int] = ()) -> Image:
    pixels = np.zeros((1, *shape), dtype)
    if blob:
        pixels[(0, *blob)] = 100
    return Image(pixels, Modality.mri, tuple(spacing))


def test_everything_but_the_pixels_is_that_of_the_source() -> None:
    studies = Studies(*[{"image": volume(4, 6, 6, blob=(number, 2, 2))} for number in range(3)])
    source = Prepared(studies, options(size=8))
    assert len(source) == 3 and source.duplicates == "drop"
    assert (source.skipped, source.warnings) == (studies.skipped, studies.warnings)
    assert (source.name_of(1), source.origin(1)) == (studies.name_of(1), studies.origin(1))
    for own, inner in zip(source, studies, strict=True):
        assert (own.key, own.subject, own.split, own.task) == (inner.key, inner.subject, inner.split, inner.task)
        assert own.label == inner.label and own.attributes == inner.attributes and own.organ is Organ.brain
        assert own.image.pixels.shape == (1, 8, 8, 8) and own.image.modality is Modality.mri


def test_a_preparation_that_does_nothing_leaves_bytes_and_card_as_they_are() -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 5, 6, 7))
    studies = Studies({"image": Image(pixels, spacing_mm=(1.0, 2.0, 3.0))})
    source = Prepared(studies, Preparation())
    assert source.card == studies.card and source.card.official
    assert source.sample(0).image.pixels.tobytes() == pixels.tobytes()


def test_a_copy_in_another_process_gives_equal_samples() -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (1, 9, 9, 9)).astype(np.int16)
    source = Prepared(
        Studies({"image": Image(pixels, spacing_mm=(1.0, 1.0, 1.0))}),
        options(spacing_mm=1.3, crop="foreground", size=6, fit="resize", intensity={"percentile": [1, 99]}),
    )
    copy = pickle.loads(pickle.dumps(source))
    assert copy.card == source.card and copy.duplicates == "drop"
    assert copy.sample(0).image.pixels.tobytes() == source.sample(0).image.pixels.tobytes()


def test_the_steps_follow_the_order_of_the_options() -> None:
    """The blob of 2 x 2 x 2 mm: 4 voxels along each axis at half a millimetre, 2 voxels of margin, then one size."""
    image = volume(10, 10, 10, spacing=(1, 1, 1), blob=(slice(4, 6), slice(2, 4), slice(6, 8)), dtype=np.uint8)
    half = {"spacing_mm": 0.5, "crop": "foreground", "threshold": 50, "margin": 2}
    cropped = prepared({"image": image}, **half)["image"]
    assert cropped.pixels.shape == (1, 8, 8, 8) and cropped.spacing_mm == (0.5, 0.5, 0.5)
    resized = prepared({"image": image}, **half, size=16, fit="resize")["image"]
    assert resized.pixels.shape == (1, 16, 16, 16) and resized.spacing_mm == (0.25, 0.25, 0.25)
    bits = prepared({"image": image}, **half, size=[10, 9, 8], intensity={"window": [50, 100]})["image"]
    assert bits.pixels.dtype == np.uint8 and bits.pixels.shape == (1, 10, 9, 8)
    assert bits.pixels.max() == 255 and bits.pixels[0, 0].max() == 0


def test_images_on_one_grid_and_their_mask_share_a_box_that_holds_the_foreground_of_both() -> None:
    mask = volume(12, 12, 12, dtype=np.uint8)
    mask.pixels[0, 5, 5, 5], mask.pixels[0, 0, 0, 0] = 3, 4  # the second is outside of what the images show
    images = {
        "t1": volume(12, 12, 12, spacing=(1, 1, 1), blob=(2, 5, 5)),
        "mask": mask,  # its file knows no spacing: it is on the grid of the image
        "t2": volume(12, 12, 12, spacing=(1, 1, 1.00001), blob=(8, 6, 7)),
    }
    result = prepared(images, crop="foreground", margin=1)
    assert {image.pixels.shape for image in result.values()} == {(1, 9, 4, 5)}
    assert np.argwhere(result["t1"].pixels[0]).tolist() == [[1, 1, 1]]
    assert np.argwhere(result["t2"].pixels[0]).tolist() == [[7, 2, 3]]
    assert np.argwhere(result[MASK].pixels[0]).tolist() == [[4, 1, 1]]


def test_images_on_other_grids_get_boxes_of_their_own() -> None:
    images = {
        "mri": volume(12, 12, 12, spacing=(1, 1, 1), blob=(2, 5, 5)),
        "ct": volume(12, 12, 12, spacing=(2, 2, 2), blob=(9, 9, slice(1, 4))),
        "pet": volume(6, 6, 6, spacing=(2, 2, 2), blob=(slice(0, 2), 3, 3)),
    }
    shapes = {name: image.pixels.shape for name, image in prepared(images, crop="foreground", margin=0).items()}
    assert shapes == {"mri": (1, 1, 1, 1), "ct": (1, 1, 1, 3), "pet": (1, 2, 1, 1)}


@pytest.mark.parametrize("steps", [{"spacing_mm": [0.7, 1.9, 1.1]}, {"size": 17, "fit": "resize"}, {"size": 17}])
def test_masks_keep_their_labels_and_the_grid_of_the_image(steps: dict[str, Any]) -> None:
    labels = np.random.default_rng(0).choice([0, 3, 200], (1, 10, 11, 12)).astype(np.uint8)
    image = Image(labels.astype(np.float32) * 10 + 5, spacing_mm=(1.0, 1.0, 1.0))
    result = prepared({"image": image, "mask": Image(labels)}, **steps, intensity={"percentile": [0, 100]})
    assert set(np.unique(result[MASK].pixels)) == {0, 3, 200} and result[MASK].pixels.dtype == np.uint8
    assert result[MASK].pixels.shape == result["image"].pixels.shape
    assert result[MASK].spacing_mm == result["image"].spacing_mm


def test_padding_does_not_move_the_percentiles() -> None:
    image = Image(np.arange(1, 101, dtype=np.int16).reshape(1, 10, 10))
    steps: dict[str, Any] = {"intensity": {"percentile": [10, 90]}}
    alone, padded = (prepared({"image": image}, **steps, **more)["image"].pixels for more in ({}, {"size": 40}))
    assert (padded[:, 15:25, 15:25] == alone).all() and not np.delete(padded, slice(15, 25), axis=1).any()


def test_padding_is_the_smallest_value_of_an_image_and_0_of_a_mask() -> None:
    pixels = np.array([[[-1024, 7], [8, 9]]], np.int16)
    result = prepared({"image": Image(pixels), "mask": Image(np.full((1, 2, 2), 4, np.uint8))}, size=4)
    assert result["image"].pixels[0, 0].tolist() == [-1024] * 4 and result[MASK].pixels[0, 0].tolist() == [0] * 4
    assert (result["image"].pixels[:, 1:3, 1:3] == pixels).all() and (result[MASK].pixels[:, 1:3, 1:3] == 4).all()


@pytest.mark.parametrize(
    "images, steps, message",
    [
        ({"pet": volume(4, 4, 4)}, {"spacing_mm": 1}, "pet: its spacing is not known"),
        ({"ap": volume(4, 4)}, {"size": [4, 4, 4]}, "ap: size has 3 numbers"),
        ({"ap": volume(4, 4)}, {"size": [4, 4, 4], "fit": "resize"}, "ap: size has 3 numbers"),
        (
            {"ap": Image(np.array([[[1.0, np.nan]]]))},
            {"intensity": {"window": [0, 1]}},
            "ap: holds values that are not",
        ),
        ({"ap": Image(np.array([[[1.0, -1.7e308]]]))}, {"size": 3, "fit": "resize"}, "ap: holds values that are not"),
        ({"ap": Image(np.array([[[1.0, np.inf]]], np.float32))}, {"size": 2}, "ap: holds values that are not"),
        (
            {"ap": volume(4, 4, spacing=(1, 1)), "mask": volume(4, 4, spacing=(2, 2), dtype=np.uint8)},
            *({"crop": "foreground"}, "the mask of shape .4, 4. is on the grid of no image"),
        ),
    ],
)
def test_errors_name_the_item_as_the_source_does(images: dict[str, Image], steps: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^row 1 of the table: {message}"):
        prepared(images, **steps)


@pytest.mark.parametrize(
    "steps, words",
    [
        ({}, ""),
        ({"fit": "resize", "margin": 9}, ""),
        ({"spacing_mm": 2}, "resampled to 2 mm"),
        ({"spacing_mm": [3, 0.5, 0.5]}, "resampled to 3 x 0.5 x 0.5 mm"),
        ({"crop": "foreground"}, "cut to the foreground above the mean with a margin of 4 voxels"),
        (
            {"crop": "foreground", "threshold": -200, "margin": 0},
            "cut to the foreground above -200 with a margin of 0 voxels",
        ),
        ({"size": 64}, "cropped or padded to 64 voxels along each axis"),
        ({"size": [64, 32], "fit": "resize"}, "resized to 64 x 32 voxels"),
        ({"intensity": {"window": [40, 400]}}, "8 bits from a window of width 400 around 40"),
        (
            {"spacing_mm": 2, "size": [96, 128, 128], "intensity": {"percentile": [0.5, 99.5]}},
            "resampled to 2 mm, cropped or padded to 96 x 128 x 128 voxels, "
            "8 bits between the percentiles 0.5 and 99.5",
        ),
    ],
)
def test_the_card_says_what_was_done(steps: dict[str, Any], words: str) -> None:
    preparation = options(**steps)
    assert preparation.words == words
    own = Prepared(Studies(note="made up"), preparation).card
    assert own.note == (f"made up; prepared: {words}" if words else "made up")
    published = Prepared(Studies(), preparation).card
    assert (published.note, published.official) == ((f"prepared: {words}", False) if words else ("", True))
    assert DatasetCard.model_validate(published.model_dump()) == published


@pytest.mark.parametrize(
    "override, message",
    [
        ("spacing_mm=0", "greater than 0"),
        ("spacing_mm=[1,.inf,1]", "less than or equal"),
        ("size=0", "greater than or equal to 1"),
        ("size=70000", "less than or equal to 65536"),
        ("threshold=.nan", "finite number"),
        ("margin=-1", "greater than or equal to 0"),
        ("fit=stretch", "'crop' or 'resize'"),
        ("sise=3", "did you mean 'size'"),
        ("intensity.window=[0,0]", "a width above 0"),
        ("intensity.window=[.nan,1]", "a finite center"),
        ("intensity.window=[0,.inf]", "a width above 0"),
        ("intensity.percentile=[5,5]", "percentiles rise within 0 and 100"),
        ("intensity.percentile=[-1,99]", "percentiles rise within 0 and 100"),
        ("intensity.percentile=[1,.nan]", "percentiles rise within 0 and 100"),
        ("intensity={window: [0,1], percentile: [1,99]}", "give one of them"),
    ],
)
def test_options_that_make_no_sense_are_refused(override: str, message: str) -> None:
    content: dict[str, Any] = {}
    apply_overrides(content, [override])
    with pytest.raises(ConfigError, match=message):
        parse(Preparation, content, "options: prepare")
