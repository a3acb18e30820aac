"""Crops about the foreground: which they are and where they lie, out of a few planes, on any rank and after a stop."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_shards.intensity import BYTES, Percentiles, Window, Windows, ZScore, foreground_of
from data_shards.order.places import shares
from data_shards.prepare import Ruled
from data_shards.reading.cropped import Crop, CroppedDataset
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import CheckpointError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.data_shards.reading.test_crops import own_crops, written

BRIGHT = ZScore(foreground=900.0)
SHAPES = [(1, 40, 150, 130), (1, 24, 190, 170), (1, 6, 20, 20)]
"""The first two have checksums of their parts; the last is read whole, and has fewer slices than rounds look at."""


def spotted(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Dark noise, and a bright corner of half of each side."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 100, shape)
    depth, height, width = (length // 2 for length in shape[1:])
    pixels[:, -depth:, : height // 2, -(width // 2) :] += 1000
    return pixels.astype(np.int16)


VOLUMES = [spotted(seed, shape) for seed, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "spotted"
    written(folder, VOLUMES)
    return folder


def cropped(folder: Path, share: float, size: int | tuple[int, ...] = (4, 16, 12), **options: object) -> CroppedDataset:
    crop = Crop(size=size, per_volume=60, foreground=share)
    return CroppedDataset(folder, "train", crop, seed=3, **{"rule": BRIGHT, **options})


def own_voxel(pixels: np.ndarray, threshold: float | str, number_K: np.ndarray) -> np.ndarray | None:
    """The voxel as the documents say it is found, of a volume in memory."""
    depth = pixels.shape[1]
    for turn in range(4):
        planes = sorted({int((each + number_K[4 * turn + each]) * depth / 4) for each in range(4)})
        shown = pixels[:, planes]
        places = np.argwhere((shown > (shown.mean() if threshold == "mean" else threshold)).any(axis=0))
        if len(places):
            plane, row, column = places[int(number_K[-1] * len(places))]
            return np.array([planes[plane], row, column])
    return None


@pytest.mark.parametrize("threshold", [900.0, "mean"])
def test_every_crop_lies_about_a_foreground_voxel_and_inside_its_volume(folder: Path, threshold: float | str) -> None:
    dataset = cropped(folder, 1.0, rule=ZScore(foreground=threshold))
    found = dataset.read(np.arange(len(dataset)), 2).stacked
    size = np.array([4, 16, 12])
    number_BK = shares(("crop foreground", 3, "toy/train", 2), np.arange(len(dataset)), 18)
    voxels = set()
    for crop, number_K, volume in zip(found, number_BK, np.repeat(np.arange(3), 60), strict=True):
        pixels = VOLUMES[volume]
        voxel = own_voxel(pixels, threshold, number_K[1:])
        assert voxel is not None and pixels[0][tuple(voxel)] > (900 if threshold == 900 else pixels.mean() / 2)
        first = np.clip(voxel - size // 2, 0, np.array(pixels.shape[1:]) - size)
        np.testing.assert_array_equal(crop, pixels[(slice(None), *map(slice, first, first + size))])
        voxels.add((volume, *voxel.tolist()))
    assert len(voxels) > 150  # not always the same ones
    if threshold == 900:
        assert (found.max(axis=(1, 2, 3, 4)) > 900).all()


def test_the_share_is_of_the_crops_and_the_others_lie_where_they_would_without_it(folder: Path) -> None:
    plain, mixed = cropped(folder, 0.0), cropped(folder, 1 / 3)

    def chosen(epoch: int) -> np.ndarray:
        return shares(("crop foreground", 3, "toy/train", epoch), np.arange(180), 18)[:, 0] < 1 / 3

    for epoch in (0, 1):
        before, found = (each.read(np.arange(180), epoch).stacked for each in (plain, mixed))
        np.testing.assert_array_equal(before, own_crops(plain, VOLUMES, epoch))
        np.testing.assert_array_equal(found[~chosen(epoch)], before[~chosen(epoch)])
        bright = found.max(axis=(1, 2, 3, 4)) > 900
        assert bright[chosen(epoch)].all() and not bright[~chosen(epoch)].all()
    total = sum(chosen(epoch).sum() for epoch in range(100))
    assert abs(total - 6000) < 5 * np.sqrt(18000 * 2 / 9)  # binomial, five standard deviations
    assert (chosen(0) != chosen(1)).any()


def test_a_volume_without_foreground_is_cut_anywhere(folder: Path) -> None:
    plain, none = cropped(folder, 0.0), cropped(folder, 1.0, rule=ZScore(foreground=5000.0))
    np.testing.assert_array_equal(none.read(np.arange(180)).stacked, plain.read(np.arange(180)).stacked)


def test_a_small_volume_is_padded_as_without_a_share(folder: Path) -> None:
    crop = Crop(size=(8, 24, 24), per_volume=2, smaller="pad", foreground=1.0)
    dataset = CroppedDataset(folder, "train", crop, seed=0, rule=BRIGHT)
    found = dataset.read(np.array([4]))  # of the last, which is shorter along every axis
    least = min(each.min() for each in VOLUMES)
    expected = np.pad(VOLUMES[2], [(0, 0), (1, 1), (2, 2), (2, 2)], constant_values=least)
    np.testing.assert_array_equal(found.stacked[0], expected)


def test_the_threshold_is_that_of_the_rule_else_the_mean(tmp_path: Path) -> None:
    window = Windows(windows=(Window(center=40, width=400),))
    assert [foreground_of(rule) for rule in (None, BYTES, window, Percentiles())] == ["mean"] * 4
    assert [foreground_of(rule) for rule in (ZScore(), BRIGHT, Percentiles(foreground=7.0))] == ["mean", 900.0, 7.0]
    samples = [toy_sample(f"v-{place}", pixels=pixels) for place, pixels in enumerate(VOLUMES)]
    write_dataset(Ruled(Listed(samples, card()), {"*": BRIGHT}), tmp_path / "ruled")
    own = cropped(tmp_path / "ruled", 1.0, rule=None).read(np.arange(180)).stacked
    assert (own.max(axis=(1, 2, 3, 4)) > 900).all()


def test_a_stream_shows_the_same_on_any_number_of_ranks_in_processes_and_after_a_resumption(folder: Path) -> None:
    dataset = cropped(folder, 0.5)
    expected = dataset.read(np.arange(180)).stacked
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.read(np.arange(180)[::-1]).stacked, expected[::-1])

    def streams(count: int) -> list[SampleStream]:
        return [SampleStream([dataset], batch_size=36, seed=5, rank=rank, world_size=count) for rank in range(count)]

    (whole,) = streams(1)
    batches = list(itertools.islice(iter(whole), 5))
    for batch in batches:
        np.testing.assert_array_equal(batch.images, expected[batch.sample_B.numpy()])
    parts = streams(2)
    for batch, *own in itertools.islice(zip(batches, *parts, strict=False), 3):
        np.testing.assert_array_equal(np.concatenate([part.images for part in own]), batch.images)
    (resumed,) = streams(1)
    resumed.load_state_dict(parts[0].state_dict())
    np.testing.assert_array_equal(next(iter(resumed)).images, batches[3].images)
    for other in (cropped(folder, 0.4), cropped(folder, 0.5, rule=ZScore(foreground=800.0))):
        with pytest.raises(CheckpointError):
            SampleStream([other], batch_size=36, seed=5).load_state_dict(parts[0].state_dict())


def test_a_crop_without_a_share_is_written_as_before_there_was_one(folder: Path) -> None:
    assert Crop(size=8).model_dump() == {"size": (8,), "per_volume": 1, "smaller": "refuse"}
    assert Crop(size=8, foreground=0.33).model_dump()["foreground"] == 0.33
    assert cropped(folder, 0.0).form == '/{"size":[4,16,12],"per_volume":60,"smaller":"refuse"}'
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="foreground"):
            Crop(size=8, foreground=share)
