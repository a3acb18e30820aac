"""Corruptions: the same for an image wherever it stands, worse from severity to severity, and what the formulas say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_shards.intensity import Percentiles, Window, Windows
from data_shards.support.errors import ConfigError
from finetune.shift.corruptions import CORRUPTIONS, SEVERITIES
from finetune.shift.corruptions.ghosting import ghosted
from finetune.shift.pictures import Change, corrupted
from pretrain.views.random import sample_keys
from tests.finetune.samples import Reader, blobs, solid_blobs, studies_of

ALL = CORRUPTIONS.names()


def structured(axes: int, count: int = 4) -> torch.Tensor:
    """Smooth shapes with some texture, away from black and white."""
    generator = torch.Generator().manual_seed(axes)
    coarse = torch.rand(count, 1, *[5] * axes, generator=generator)
    mode = "bilinear" if axes == 2 else "trilinear"
    smooth = torch.nn.functional.interpolate(coarse, size=[24] * axes, mode=mode)
    return 0.25 + 0.4 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)


def keys(count: int) -> torch.Tensor:
    return sample_keys(0, 0, 0, torch.arange(count), 0)


def test_all_that_are_asked_for_are_there() -> None:
    assert {"noise", "bias_field", "blur", "contrast", "gamma", "resolution", "spike", "ghosting"} <= set(ALL)
    with pytest.raises(ConfigError, match="unknown corruption 'blurr'; did you mean 'blur'"):
        CORRUPTIONS.named("blurr")()
    with pytest.raises(ConfigError, match="severity is one of 1, 2, 3, 4, 5, found 0"):
        CORRUPTIONS.named("blur")()(structured(2), keys(4), 0)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", ALL)
def test_damage_grows_with_severity_for_every_image_and_nothing_is_written_over(name: str, axes: int) -> None:
    images = structured(axes)
    before = images.clone()
    damage = []
    for severity in SEVERITIES:
        found = CORRUPTIONS.named(name)()(images, keys(4), severity)
        assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1
        damage.append((found - images).square().flatten(1).mean(dim=1))
    assert torch.equal(images, before)
    rising = torch.stack(damage)
    assert (rising[0] > 1e-6).all() and (rising.diff(dim=0) > 0).all(), rising


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_changed_alike_in_any_batch_and_twice(name: str) -> None:
    images, own = structured(2), keys(4)
    corruption = CORRUPTIONS.named(name)()
    together = corruption(images, own, 3)
    assert torch.equal(corruption(images, own, 3), together)
    assert torch.equal(torch.cat([corruption(images[i : i + 1], own[i : i + 1], 3) for i in range(4)]), together)


def test_what_is_drawn_is_the_same_at_every_severity() -> None:
    images = torch.full((2, 1, 16, 16), 0.5)
    weak, strong = (CORRUPTIONS.named("noise")()(images, keys(2), severity) - images for severity in (1, 2))
    torch.testing.assert_close(strong, weak * (0.05 / 0.02), atol=1e-5, rtol=1e-4)


def test_ghosts_are_the_mean_of_moved_copies_less_the_mean() -> None:
    image = torch.rand(1, 1, 24, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ghosts, axis in ((2, 2), (3, 2), (4, 3)):
        length = image.shape[axis]
        copies = sum(image.roll(length * number // ghosts, axis) for number in range(ghosts)) / ghosts
        expected = image - 0.4 * (copies - image.mean(dim=axis, keepdim=True))
        torch.testing.assert_close(ghosted(image, ghosts, 0.4, axis), expected)


def test_a_spike_is_one_point_of_the_spectrum() -> None:
    images = torch.full((1, 1, 40, 40), 0.5)
    stripes = (CORRUPTIONS.named("spike")()(images, keys(1), 2) - images)[0, 0].double()
    assert stripes.abs().max() == pytest.approx(0.08, abs=2e-3)
    power = torch.fft.fft2(stripes * torch.outer(torch.hann_window(40), torch.hann_window(40))).abs().square()
    assert power.flatten().topk(40).values.sum() > 0.98 * power.sum()


def test_cases_are_changed_by_their_pixels_whatever_the_selection_and_keep_what_is_known_of_them() -> None:
    cases = blobs(12)
    change = [Change(CORRUPTIONS.named("noise")(), 3)]
    found = corrupted(cases, change, 0)
    assert found.keys.tolist() == cases.keys.tolist() and np.array_equal(found.known_labels, cases.known_labels)
    whole = [study.images["image"].pixels for study in studies_of(found)]
    some = [study.images["image"].pixels for study in studies_of(corrupted(cases[[7, 2]], change, 0))]
    np.testing.assert_array_equal(some, [whole[7], whole[2]])
    other = [study.images["image"].pixels for study in studies_of(corrupted(cases, change, 1))]
    assert whole[0].dtype == np.uint8 and (np.array(whole) != np.array(other)).mean() > 0.5
    assert studies_of(corrupted(solid_blobs(2), change, 0))[0].images["image"].pixels.shape == (1, 6, 16, 16)


def test_values_under_a_rule_keep_their_dtype_and_the_range_that_the_rule_shows() -> None:
    window = Windows(windows=(Window(center=0.0, width=800.0),))
    for rule, low, high in ((window, -400, 400), (Percentiles(), -1200, 2000)):
        studies = []
        for study in studies_of(blobs(3)):
            image = study.images["image"]
            values = (image.pixels.astype(np.int16) - 100) * 12
            values[:, 0, :2] = (-1200, 2000)
            studies.append(replace(study, images={"image": replace(image, pixels=values)}, rules={"image": rule}))
        cases = Reader(studies).cases(blobs(3))
        found = studies_of(corrupted(cases, [Change(CORRUPTIONS.named("noise")(), 1)], 0))[0].images["image"].pixels
        assert found.dtype == np.int16 and found.min() >= low and found.max() <= high
        apart = np.abs(found.astype(int) - studies[0].images["image"].pixels.clip(low, high))
        assert 0 < apart.mean() < 0.05 * (high - low)
