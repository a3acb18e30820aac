"""Crops of volumes: their voxels, at places that seed, epoch and number fix, out of bands that are checked."""

from __future__ import annotations

import itertools
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_shards.foreign.adopt import AdoptConfig, adopt
from data_shards.format.bands import BAND_BYTES, BANDED_BYTES
from data_shards.format.index import read_index
from data_shards.order.places import places
from data_shards.reading.box import Box, BoxReader
from data_shards.reading.cropped import Crop, CroppedDataset
from data_shards.reading.open_shard import OpenShard
from data_shards.reading.reader import ShardedDataset
from data_shards.storage.local import LocalFolder
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import CheckpointError, DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample

SHAPE = (1, 40, 150, 130)


def volume(seed: int, shape: tuple[int, ...] = SHAPE, dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 3000, shape).astype(dtype)


def written(folder: Path, volumes: list[np.ndarray], **options: int) -> list[np.ndarray]:
    samples = [toy_sample(f"v-{place:03d}", pixels=pixels) for place, pixels in enumerate(volumes)]
    write_dataset(Listed(samples, card()), folder, **options)
    return volumes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five volumes of 1.5 MB in three shards."""
    folder = tmp_path_factory.mktemp("made") / "volumes"
    written(folder, [volume(seed) for seed in range(5)], shard_bytes=4 << 20)
    return folder


def cropped(folder: Path, size: int | tuple[int, ...] = 24, seed: int = 0, **options: object) -> CroppedDataset:
    return CroppedDataset(folder, "train", Crop(size=size, **options), seed=seed)


def own_crops(dataset: CroppedDataset, volumes: list[np.ndarray], epoch: int = 0) -> list[np.ndarray]:
    """The crops as the documents say they are cut, of volumes in memory."""
    found = []
    for number in range(len(dataset)):
        pixels = volumes[number // dataset.crop.per_volume]
        size = dataset.image_shape[1:]
        kept = [min(own, whole) for own, whole in zip(size, pixels.shape[1:], strict=True)]
        room = np.array([[whole - own + 1 for whole, own in zip(pixels.shape[1:], kept, strict=True)]])
        first = places(("crop", dataset.seed, "toy/train", epoch), np.array([number]), room)[0]
        cut = pixels[(slice(None), *map(slice, first, first + kept))]
        missing = [(own - have, (own - have) // 2) for own, have in zip(size, kept, strict=True)]
        margins = [(0, 0), *((before, total - before) for total, before in missing)]
        found.append(np.pad(cut, margins, constant_values=min(each.min() for each in volumes)))
    return found


@pytest.mark.parametrize("shape", [SHAPE, (2, 9, 300, 250), (3, 700, 611), (1, 1, 70, 9000)])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_box_is_what_a_slice_of_the_array_is(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    pixels = volume(3, shape, dtype)
    assert pixels.nbytes >= BANDED_BYTES
    written(tmp_path / "v", [volume(1), pixels])
    entry = ShardedDataset(tmp_path / "v", "train").entry.shards[0]
    shard = OpenShard(LocalFolder(tmp_path / "v"), entry)
    slot = shard.records["images"]["image"][1]
    random = np.random.default_rng(0)
    for _ in range(40):
        first = [int(random.integers(0, length)) for length in shape[1:]]
        size = [int(random.integers(1, length - start + 1)) for length, start in zip(shape[1:], first, strict=True)]
        box = Box(tuple(first), tuple(size))
        found = BoxReader(shard, slot, "image", 1, "it", whole=False)(box)
        np.testing.assert_array_equal(found, pixels[box.slices])
        assert found.dtype == pixels.dtype


def test_the_checksums_are_those_of_runs_of_lines_and_the_records_read_as_ever(folder: Path) -> None:
    dataset = ShardedDataset(folder, "train")
    rows = BAND_BYTES // (SHAPE[3] * 2)
    number = 0
    for entry in dataset.entry.shards:
        with open(folder / entry.index, "rb") as file:
            records, bands = np.load(file), np.load(file)
            assert not file.read()
        np.testing.assert_array_equal(records, np.load(folder / entry.index))
        expected = []
        for _ in records:
            for plane in volume(number)[0]:
                expected += [zlib.crc32(plane[start : start + rows].tobytes()) for start in range(0, SHAPE[2], rows)]
            number += 1
        assert bands.tolist() == expected
    assert number == 5


def test_small_images_have_no_bands_and_are_cropped_all_the_same(tmp_path: Path) -> None:
    volumes = written(tmp_path / "v", [volume(seed, (1, 20, 30, 40)) for seed in range(3)])
    entry = ShardedDataset(tmp_path / "v", "train").entry.shards[0]
    records = read_index(tmp_path / "v" / entry.index, 3)
    assert (tmp_path / "v" / entry.index).stat().st_size == records.offset + records.nbytes
    dataset = cropped(tmp_path / "v", 16)
    np.testing.assert_array_equal(dataset.read(np.arange(3)).stacked, own_crops(dataset, volumes))


def test_an_index_that_is_widened_keeps_its_checksums(tmp_path: Path) -> None:
    """The first shard is closed before a study with a longer key and another image comes."""
    first = [toy_sample(f"v-{place}", pixels=volume(place)) for place in range(3)]
    later = toy_sample("a-much-longer-key", pixels=volume(3))
    write_dataset(Listed([*first, later], card()), tmp_path / "v", shard_bytes=1 << 20)
    assert len(ShardedDataset(tmp_path / "v", "train").entry.shards) == 4
    dataset = cropped(tmp_path / "v", (8, 100, 7))
    expected = own_crops(dataset, [volume(place) for place in range(4)])
    np.testing.assert_array_equal(dataset.read(np.arange(4)).stacked, expected)


def test_shards_of_others_have_bands_too(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "train-0.tar")) as tar:
        for place in range(2):
            tar.write({"__key__": f"c{place}", "npy": volume(place), "cls": str(place)})
    content = card().model_dump() | {"name": "toy"}
    adopt(tmp_path, AdoptConfig.model_validate({"card": content, "images": {"npy": "image"}, "label": "cls"}))
    dataset = cropped(tmp_path)
    entry = dataset.entry.shards[0]
    records = read_index(tmp_path / entry.index, 2)
    assert (tmp_path / entry.index).stat().st_size > records.offset + records.nbytes
    np.testing.assert_array_equal(dataset.read(np.arange(2)).stacked, own_crops(dataset, [volume(0), volume(1)]))


def test_every_crop_lies_where_seed_epoch_and_number_say(folder: Path) -> None:
    volumes = [volume(seed) for seed in range(5)]
    dataset = cropped(folder, (10, 96, 33), seed=7, per_volume=3)
    assert len(dataset) == 15 and dataset.image_shape == (1, 10, 96, 33)
    for epoch in (0, 1):
        expected = own_crops(dataset, volumes, epoch)
        np.testing.assert_array_equal(dataset.read(np.arange(15), epoch).stacked, expected)
        shuffled = np.random.default_rng(0).permutation(15)[:6]
        records = dataset.read(shuffled, epoch)
        np.testing.assert_array_equal(records.stacked, [expected[number] for number in shuffled])
        assert records.key_B.tolist() == [b"v-%03d" % (number // 3) for number in shuffled]
    one, other = (cropped(folder, seed=seed).read(np.arange(5)).stacked for seed in (0, 1))
    assert not (one == other).all(axis=(1, 2, 3, 4)).any()
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.read(np.arange(15), 1).stacked, expected)


def test_places_are_uniform_and_independent_of_each_other() -> None:
    """Chi-square of 20,000 places on 7 x 5 x 1, and of pairs that follow one another; 5 standard deviations."""
    room = np.tile([7, 5, 1], (20_000, 1))
    found = places(("crop", 0, "set", 0), np.arange(20_000), room)
    assert found.min() == 0 and (found.max(axis=0) == [6, 4, 0]).all()
    cell = found[:, 0] * 5 + found[:, 1]
    for counts in (np.bincount(cell, minlength=35), np.bincount(cell[:-1] * 35 + cell[1:], minlength=35**2)):
        expected = counts.sum() / len(counts)
        statistic = ((counts - expected) ** 2 / expected).sum()
        free = len(counts) - 1
        assert abs(statistic - free) < 5 * np.sqrt(2 * free)
    for other in (("crop", 1, "set", 0), ("crop", 0, "tes", 0), ("crop", 0, "set", 1)):
        assert 0.5 / 35 < (places(other, np.arange(20_000), room) == found).all(axis=1).mean() < 2 / 35


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("readers", [0, 2])
def test_a_stream_shows_the_same_crops_on_any_number_of_ranks_and_after_a_resumption(
    folder: Path, ranks: int, readers: int
) -> None:
    dataset = cropped(folder, 16, per_volume=4)

    def streams(count: int) -> list[SampleStream]:
        return [
            SampleStream([dataset], batch_size=6, seed=5, rank=rank, world_size=count, readers=readers)
            for rank in range(count)
        ]

    (whole,) = streams(1)
    batches = list(itertools.islice(iter(whole), 2 * whole.batches_per_epoch))
    for epoch in range(2):
        shown = np.concatenate([batch.sample_B for batch in batches if batch.epoch == epoch])
        assert sorted(shown) == list(range(20))
        expected = own_crops(dataset, [volume(seed) for seed in range(5)], epoch)
        found = np.concatenate([batch.images for batch in batches if batch.epoch == epoch])
        np.testing.assert_array_equal(found, [expected[number] for number in shown])
    parts = streams(ranks)
    for batch, *own in itertools.islice(zip(batches, *parts, strict=False), 5):
        np.testing.assert_array_equal(np.concatenate([part.images for part in own]), batch.images)
        assert np.concatenate([part.sample_B for part in own]).tolist() == batch.sample_B.tolist()
    state = parts[0].state_dict()
    (again,) = streams(1)
    again.load_state_dict(state)
    np.testing.assert_array_equal(next(iter(again)).images, batches[5].images)
    with pytest.raises(CheckpointError, match="another seed"):
        SampleStream([cropped(folder, 17, per_volume=4)], batch_size=6, seed=5).load_state_dict(state)


def test_a_damaged_band_stops_the_crops_that_meet_it_and_no_others(tmp_path: Path) -> None:
    written(tmp_path / "v", [volume(0)])
    dataset = cropped(tmp_path / "v", 8)
    entry = dataset.entry.shards[0]
    shard = OpenShard(LocalFolder(tmp_path / "v"), entry)
    slot = shard.records["images"]["image"][0]
    plane, line = 20, 149  # of the last band of a plane
    with open(tmp_path / "v" / entry.file, "r+b") as file:
        file.seek(int(slot["offset"]) + (plane * SHAPE[2] + line) * SHAPE[3] * 2 + 5)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    rows = BAND_BYTES // (SHAPE[3] * 2)
    band = (SHAPE[2] - 1) // rows * rows
    read = BoxReader(shard, slot, "image", 0, "sample v-000", whole=False)
    for first, size in (((0, 0, 0), (20, 150, 130)), ((20, 0, 0), (20, band, 130)), ((21, 0, 0), (19, 150, 130))):
        box = Box(first, size)
        np.testing.assert_array_equal(read(box), volume(0)[box.slices])
    with pytest.raises(DataError, match=r"\.tar: damaged: the pixels of sample v-000 fail their CRC-32"):
        read(Box((20, band, 64), (1, 1, 1)))
    with pytest.raises(DataError, match="fail their CRC-32"):
        ShardedDataset(tmp_path / "v", "train").read(np.arange(1))


def test_a_shard_that_is_cut_off_or_has_other_checksums_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "v", [volume(0)])
    dataset = cropped(tmp_path / "v", 8)
    entry = dataset.entry.shards[0]
    tar, index = tmp_path / "v" / entry.file, tmp_path / "v" / entry.index
    content = tar.read_bytes()
    tar.write_bytes(content[:-1])
    with pytest.raises(DataError, match="truncated or damaged"):
        dataset.read(np.arange(1))
    tar.write_bytes(content)
    index.write_bytes(index.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match="damaged: its SHA-256"):
        cropped(tmp_path / "v", 8).read(np.arange(1))


def test_volumes_that_are_too_small_are_refused_by_name_or_padded_with_the_smallest_value(tmp_path: Path) -> None:
    volumes = written(tmp_path / "v", [volume(0), volume(1, (1, 40, 20, 130)), volume(2, (1, 90, 64, 64))])
    with pytest.raises(DataError) as refused:
        cropped(tmp_path / "v", 24)
    assert str(refused.value) == (
        f"{tmp_path / 'v'}: sample v-001: a crop of 24 x 24 x 24 is larger than a volume of 40 x 20 x 130 voxels; make "
        "it smaller, or let such volumes be padded (smaller: pad)"
    )
    dataset = cropped(tmp_path / "v", (24, 25, 64), smaller="pad", per_volume=2)
    found = dataset.read(np.arange(6)).stacked
    np.testing.assert_array_equal(found, own_crops(dataset, volumes))
    least = min(each.min() for each in volumes)
    for number in (2, 3):
        assert (found[number, :, :, :2] == least).all() and (found[number, :, :, 22:] == least).all()
        assert (found[number, :, :, 2:22] > least).mean() > 0.99


def test_what_cannot_be_cropped_is_said_when_it_is_opened(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="split train: a crop of 41 x 41 x 41 is larger than a volume of 40 x 150 x 130"
    ):
        cropped(folder, 41)
    with pytest.raises(DataError, match="a crop of 24 x 24, its images have 3 axes"):
        cropped(folder, (24, 24))
    written(tmp_path / "c", [volume(0), volume(1, (2, 40, 150, 130))])
    with pytest.raises(DataError, match="sample v-001: an image of shape 2 x 40 x 150 x 130, others have 1 channels"):
        cropped(tmp_path / "c", 24)
    written(tmp_path / "d", [volume(0), volume(1, dtype="float32")])
    with pytest.raises(DataError, match="volumes of several dtypes.*`stored`, such as stored=int16, of `medformer sh"):
        cropped(tmp_path / "d", 24)
