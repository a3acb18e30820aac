"""Augmented copies of values of more than 8 bits: nothing of the images is lost, and copies are what views are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.format.manifest import read_manifest
from data_shards.intensity import Percentiles, Rule, Window, Windows, ZScore
from data_shards.prepare import Ruled
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import ConfigError
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.intensity import in_range
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.offline import Augmented
from pretrain.views.random import sample_keys
from tests.data_shards.made_sources import Listed, card, toy_sample

OFF: dict[str, Any] = {**dict.fromkeys(ViewConfig().transforms), "policy": None}
MIRROR = ViewConfig.model_validate({**OFF, "flip": {"horizontal": 1.0}})
LUNG = Windows(windows=(Window.model_validate("lung"),))


def ramp(dtype: str) -> np.ndarray:
    """A plane of 2^16 values that rise from pixel to pixel: every one that uint16 and int16 can hold."""
    if dtype == "float32":
        return np.linspace(-1000.5, 3071.25, 1 << 16, dtype=np.float32).reshape(1, 256, 256)
    least = np.iinfo(dtype).min
    return np.arange(least, least + (1 << 16)).astype(dtype).reshape(1, 256, 256)


def made(folder: Path, images: list[np.ndarray], rule: Rule | None) -> Path:
    samples = [toy_sample(f"i-{place}", pixels=pixels) for place, pixels in enumerate(images)]
    source = Listed(samples, card())
    write_dataset(source if rule is None else Ruled(source, {"*": rule}), folder)
    return folder


RULES = {"uint16": ZScore(), "int16": Percentiles(), "float32": Windows(windows=(Window(center=0, width=140000),))}


@pytest.mark.parametrize(
    "dtype, rule",
    [
        pytest.param(dtype, rule, marks=[] if dtype == own else [pytest.mark.slow])
        for own, rule in RULES.items()
        for dtype in RULES
    ],
)
def test_every_value_survives_in_the_image_and_in_its_mirrored_copy(dtype: str, rule: Rule, tmp_path: Path) -> None:
    pixels = ramp(dtype)
    folder = made(tmp_path / "made", [pixels], rule)
    words = [f"{name}=null" for name in OFF] + ["flip.horizontal=1.0", "--out", str(tmp_path / "out")]
    assert main(["shards", "augment", str(folder), *words]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.intensity == {"image": rule} and manifest.splits["train"].images["image"].dtype == pixels.dtype.str
    image, copy = ShardedDataset(tmp_path / "out", "train").read(np.arange(2)).stacked
    assert image.tobytes() == pixels.tobytes()
    if dtype == "float32":  # views are float32 numbers from -1 to 1, and a mirror is a resampling
        span = 140000 if isinstance(rule, Windows) else np.ptp(pixels)
        np.testing.assert_allclose(copy, pixels[..., ::-1], rtol=0, atol=1e-6 * span)
    else:
        np.testing.assert_array_equal(copy, pixels[..., ::-1])


def test_a_copy_under_one_window_is_the_view_of_pretraining(tmp_path: Path) -> None:
    images = [np.random.default_rng(seed).normal(-400, 500, (1, 24, 20)).astype(np.int16) for seed in range(3)]
    views = ViewConfig(policy=None)
    source = Augmented(made(tmp_path / "made", images, LUNG), views, copies=2, seed=4)
    for row, copy in ((0, 1), (1, 2), (2, 1)):
        stored = source.sample(3 * row + copy).image.pixels
        assert stored.dtype == np.int16
        shown = in_range(torch.from_numpy(images[row][None]), LUNG)
        spacing = torch.full((1, 2), 0.7)
        view = Pipeline(views)(shown, sample_keys(4, copy, 0, torch.tensor([row]), 0), spacing)[0]
        read_again = in_range(torch.from_numpy(stored[None]), LUNG)[0]
        half_a_unit = 0.5 / (1500 / 2)
        assert (read_again - view).abs().max() <= half_a_unit + 1e-6
        expected = np.rint((view.double().numpy() + 1) / 2 * 1500 - 1350)
        np.testing.assert_array_equal(stored, expected.astype(np.int16))


def test_values_beyond_all_windows_take_the_value_of_their_ends_in_copies_alone(tmp_path: Path) -> None:
    two = Windows(windows=(Window.model_validate("lung"), Window.model_validate("mediastinum")))
    pixels = np.linspace(-3000, 3000, 400).astype(np.int16).reshape(1, 20, 20)
    source = Augmented(made(tmp_path / "made", [pixels], two), MIRROR, copies=1)
    image, copy = (source.sample(place).image.pixels for place in (0, 1))
    np.testing.assert_array_equal(image, pixels)
    np.testing.assert_array_equal(copy, pixels[..., ::-1].clip(-1350, 225))


def test_what_cannot_be_stored_again_is_held_inside_the_dtype(tmp_path: Path) -> None:
    wide = Windows(windows=(Window(center=50000, width=100000),))
    views = ViewConfig.model_validate({**OFF, "brightness": {"strength": 0.2}})
    pixels = np.random.default_rng(0).integers(60000, 65536, (1, 16, 16)).astype(np.uint16)
    source = Augmented(made(tmp_path / "made", [pixels], wide), views, copies=8)
    copies = np.stack([source.sample(place).image.pixels for place in range(1, 9)])
    assert copies.dtype == np.uint16 and copies.max() == 65535 and copies.min() >= 40000  # none went round to 0


def test_an_image_of_one_value_is_its_own_copy_where_its_own_range_counts(tmp_path: Path) -> None:
    pixels = np.full((1, 8, 8), 7, np.int16)
    source = Augmented(made(tmp_path / "made", [pixels], ZScore()), MIRROR, copies=1)
    np.testing.assert_array_equal(source.sample(1).image.pixels, pixels)


def test_values_without_a_rule_and_several_dtypes_are_refused_with_the_cure(tmp_path: Path) -> None:
    folder = made(tmp_path / "bare", [ramp("int16")], None)
    with pytest.raises(ConfigError, match="int16 values and no rule.*expected `intensity` of `medformer shards build`"):
        Augmented(folder, MIRROR, copies=1)
    folder = made(tmp_path / "mixed", [ramp("int16"), ramp("uint16")], ZScore())
    with pytest.raises(ConfigError, match="one size and one dtype; `prepare.size` and `stored` of `medformer shards b"):
        Augmented(folder, MIRROR, copies=1)
