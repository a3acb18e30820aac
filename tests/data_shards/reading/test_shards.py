from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.format.manifest import read_manifest
from data_shards.inspect.verify import verify
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.support.errors import DataError, MedformerError
from data_shards.vocabulary import Modality, Organ, Task
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample, toy_source
from tests.data_shards.shards import whole_split, with_an_empty_shard

COUNTS = {"train": 30, "val": 7, "test": 9}
PIXELS = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def members(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_two_builds_are_equal_byte_for_byte(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_dataset(toy_source(COUNTS), tmp_path / name, shard_bytes=25_000)
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    assert len(hashes(tmp_path / "first")) > 8


@pytest.mark.parametrize(
    "shape, dtype",
    [((1, 4, 5), "uint8"), ((3, 28, 28), "uint8"), ((1, 6, 7), "<i2"), ((2, 3, 4, 5), "<f4"), ((1, 4, 4), ">u2")],
)
def test_every_pixel_label_and_fact_comes_back(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    source = toy_source(COUNTS, shape=shape, dtype=dtype)
    write_dataset(source, tmp_path / "toy", shard_bytes=30_000)
    for split, count in COUNTS.items():
        own = [sample for sample in source.samples if sample.split == split]
        dataset = ShardedDataset(tmp_path / "toy", split)
        order = np.random.default_rng(1).permutation(count)
        records = dataset.read(order)
        assert len(dataset) == count and dataset.image_shape == shape
        assert (records.stacked == np.stack([own[i].image.pixels for i in order])).all()
        assert records.stacked.dtype == np.dtype(dtype).newbyteorder("<")
        assert records.label_BL.tolist() == [[i % 3] for i in order]
        assert records.key_B.tolist() == [own[i].key.encode() for i in order]
        assert records.subject_B.tolist() == [own[i].subject.encode() for i in order]
        assert set(records.organ_B) == {Organ.brain} and set(records.modality_B) == {Modality.mri}
        assert set(records.task_B) == {Task.multiclass}
        assert records.spacing_mm_BA.tolist() == [[np.float32(0.7)] * (len(shape) - 1)] * count
        assert (whole_split(tmp_path / "toy", split).stacked[order] == records.stacked).all()


def test_shards_close_by_bytes_and_split_evenly_into_files(tmp_path: Path) -> None:
    manifest = write_dataset(toy_source({"train": 30}), tmp_path / "toy", shard_bytes=25_000)
    shards = manifest.splits["train"].shards
    assert [shard.file for shard in shards] == [f"toy-train-{number:06d}.tar" for number in range(len(shards))]
    assert len(shards) > 2 and all(shard.bytes <= 25_000 for shard in shards)
    assert sum(shard.samples for shard in shards) == 30
    one_each = write_dataset(toy_source({"train": 3}), tmp_path / "tiny", shard_bytes=1)
    assert [shard.samples for shard in one_each.splits["train"].shards] == [1, 1, 1]


def test_stock_tar_and_stock_webdataset_read_the_same_samples(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    source = toy_source({"train": 12}, shape=(3, 5, 6))
    manifest = write_dataset(source, tmp_path / "toy", shard_bytes=20_000)
    paths = [str(tmp_path / "toy" / shard.file) for shard in manifest.splits["train"].shards]
    names = [name for path in paths for name in members(Path(path))]
    assert names == [f"{sample.key}.{kind}" for sample in source.samples for kind in ("npy", "json")]
    read = list(webdataset.WebDataset(paths, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in read] == [sample.key for sample in source.samples]
    for found, sample in zip(read, source.samples, strict=True):
        assert sample.label is not None
        assert (found["npy"] == sample.image.pixels).all()
        assert found["json"] == {
            "label": sample.label.tolist(),
            "modality": "mri",
            "organ": "brain",
            "spacing_mm": [0.7, 0.7],
            "split": "train",
            "subject": sample.subject,
            "task": "multiclass",
        }


def test_studies_of_several_images_keep_each_and_a_dataset_of_one_has_only_those_that_have_it(tmp_path: Path) -> None:
    def study(key: str, names: tuple[str, ...]) -> Sample:
        images = {name: Image(np.full((1, 4, 4), len(name), np.uint8), Modality.mri, (1.0, 2.0)) for name in names}
        return Sample(key, images, Organ.brain, f"subject-{key}", "train")

    source = Listed([study("a", ("t2w", "adc")), study("b", ("t2w",)), study("c", ("image",))], card())
    write_dataset(source, tmp_path / "toy")
    names = members(tmp_path / "toy" / "toy-train-000000.tar")
    assert names == ["a.adc.npy", "a.t2w.npy", "a.json", "b.t2w.npy", "b.json", "c.npy", "c.json"]
    with pytest.raises(DataError, match="say which: adc, image, t2w"):
        ShardedDataset(tmp_path / "toy", "train")
    with pytest.raises(DataError, match="has no image 'pet'; it has adc, image, t2w"):
        ShardedDataset(tmp_path / "toy", "train", image="pet")
    dataset = ShardedDataset(tmp_path / "toy", "train", image="t2w")
    assert len(dataset) == 2 and (dataset.read(np.array([1, 0])).stacked == 3).all()
    assert dataset.read(np.array([0])).label_BL.shape == (1, 0)
    with pytest.raises(IndexError, match="2 samples"):
        dataset.read(np.array([0, 2]))
    assert verify(tmp_path / "toy") == []


def test_images_of_different_sizes_come_as_a_list(tmp_path: Path) -> None:
    samples = [toy_sample(str(n), pixels=np.full((1, 3 + n, 4), n, np.uint16)) for n in range(4)]
    write_dataset(Listed(samples, card()), tmp_path / "toy")
    dataset = ShardedDataset(tmp_path / "toy", "train")
    records = dataset.read(np.array([3, 0]))
    assert dataset.image_shape is None and isinstance(records.images, list)
    assert [image.shape for image in records.images] == [(1, 6, 4), (1, 3, 4)]
    assert [int(image[0, 0, 0]) for image in records.images] == [3, 0]
    with pytest.raises(DataError, match="different shapes"):
        _ = records.stacked


def test_samples_without_a_label_are_told_from_label_zero(tmp_path: Path) -> None:
    unlabelled = Sample("a", {"image": Image(PIXELS)}, Organ.brain, "s", "train")
    write_dataset(
        Listed([unlabelled, toy_sample("b", pixels=PIXELS)], card()), tmp_path / "toy", shard_bytes=1
    )  # two shards: the first knows no label width
    assert ShardedDataset(tmp_path / "toy", "train").read(np.array([0, 1])).label_BL.tolist() == [[-1], [0]]


def test_statistics_are_those_of_all_training_pixels(tmp_path: Path) -> None:
    source = toy_source({"train": 20, "test": 5}, dtype="float32")
    layout = write_dataset(source, tmp_path / "toy").splits["train"].images["image"]
    pixels = np.stack([sample.image.pixels for sample in source.samples if sample.split == "train"]).astype(float)
    assert layout.mean == pytest.approx(pixels.mean(), rel=1e-12) and layout.std == pytest.approx(
        pixels.std(), rel=1e-12
    )
    assert (layout.min, layout.max, layout.images) == (pixels.min(), pixels.max(), 20)


def test_the_manifest_counts_classes_subjects_and_images_on_both_sides(tmp_path: Path) -> None:
    samples = [
        toy_sample("a", label=1, subject="p", pixels=PIXELS),
        toy_sample("b", label=1, subject="p", pixels=PIXELS + 1),
        toy_sample("c", label=2, subject="q", split="test", pixels=PIXELS),
        toy_sample("d", label=2, subject="r", split="val", pixels=PIXELS + 2),
    ]
    manifest = write_dataset(Listed(samples, card()), tmp_path / "toy")
    assert manifest == read_manifest(tmp_path / "toy")
    assert list(manifest.splits) == ["train", "val", "test"]
    assert manifest.splits["train"].classes == {1: 2} and manifest.splits["train"].subjects == 1
    assert manifest.shared_images == {"train/val": 0, "train/test": 1, "val/test": 0}
    assert manifest.vocabulary["organ"] == {"brain": 1} and manifest.vocabulary["modality"] == {"mri": 1}
    assert manifest.digest == json.loads((tmp_path / "toy" / "manifest.json").read_text())["digest"]


@pytest.mark.parametrize(
    "samples, message",
    [
        (
            [toy_sample("a", pixels=PIXELS), toy_sample("a", subject="z", pixels=PIXELS)],
            "sample a: the key occurs twice",
        ),
        (
            [toy_sample("a", subject="p", pixels=PIXELS), toy_sample("b", subject="p", split="test", pixels=PIXELS)],
            "sample b: its subject p is in split train and in split test",
        ),
        ([toy_sample("k" * 120, pixels=PIXELS)], "does not fit the tar format"),
        ([toy_sample("a", pixels=np.full((1, 2, 2), np.nan, np.float32))], "sample a: .* not finite"),
        ([], "no samples"),
    ],
)
def test_what_must_not_be_in_a_dataset_fails_the_build_and_leaves_nothing(
    tmp_path: Path, samples: list[Sample], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_dataset(Listed(samples, card()), tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


def test_labels_of_different_lengths_are_refused(tmp_path: Path) -> None:
    samples = [toy_sample("a", pixels=PIXELS)]
    samples.append(Sample("b", {"image": Image(PIXELS)}, Organ.brain, "t", "train", np.array([1, 2])))
    with pytest.raises(DataError, match="sample b: a label of 2 <i8, those before 1 <i8"):
        write_dataset(Listed(samples, card()), tmp_path / "toy")


def test_an_existing_folder_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    write_dataset(toy_source({"train": 2}), tmp_path / "toy")
    with pytest.raises(MedformerError, match="exists already"):
        write_dataset(toy_source({"train": 3}), tmp_path / "toy")
    write_dataset(toy_source({"train": 3}), tmp_path / "toy", overwrite=True)
    assert len(ShardedDataset(tmp_path / "toy", "train")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_dataset_travels_to_another_process(tmp_path: Path) -> None:
    write_dataset(toy_source({"train": 5}), tmp_path / "toy")
    dataset = ShardedDataset(tmp_path / "toy", "train")
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.read(np.arange(5)).stacked == dataset.read(np.arange(5)).stacked).all()


def test_positions_outside_the_split_are_refused(tmp_path: Path) -> None:
    write_dataset(toy_source({"train": 5}), tmp_path / "toy")
    dataset = ShardedDataset(tmp_path / "toy", "train")
    for position in (-1, 5):
        with pytest.raises(IndexError, match="5 samples"):
            dataset.read(np.array([position]))
    with pytest.raises(DataError, match="no split 'tran'; did you mean 'train'"):
        ShardedDataset(tmp_path / "toy", "tran")


@pytest.mark.parametrize("shard_bytes", [1, 4000, 1 << 20])
def test_a_dataset_of_one_image_finds_the_studies_that_have_it_among_all(tmp_path: Path, shard_bytes: int) -> None:
    has_pet = np.random.default_rng(3).random(60) < 0.3
    samples = []
    for number, pet in enumerate(has_pet):
        images = {"mri": Image(np.full((1, 4, 4), number, np.uint8), Modality.mri)}
        if pet:
            images["pet"] = Image(np.full((1, 2, 2), number, np.uint16), Modality.pet)
        samples.append(Sample(f"s{number}", images, Organ.brain, f"p{number}", "train", np.array([number])))
    write_dataset(Listed(samples, card()), tmp_path / "toy", shard_bytes=shard_bytes)
    pet, mri = (ShardedDataset(tmp_path / "toy", "train", image=image) for image in ("pet", "mri"))
    expected = np.flatnonzero(has_pet)
    assert (len(pet), len(mri)) == (len(expected), 60)
    order = np.random.default_rng(4).permutation(len(pet))
    records = pet.read(order)
    assert (records.stacked[:, 0, 0, 0] == expected[order]).all() and set(records.modality_B) == {Modality.pet}
    assert (records.label_BL[:, 0] == expected[order]).all()
    starts = np.cumsum([0, *(shard.samples for shard in pet.entry.shards)])[:-1]
    assert pet.shard_samples() == tuple(np.add.reduceat(has_pet, starts)) and sum(mri.shard_samples()) == 60


def test_the_mask_of_a_study_does_not_count_when_its_only_image_is_asked_for(tmp_path: Path) -> None:
    images = {"t2w": Image(np.ones((1, 4, 4), np.int16)), "mask": Image(np.full((1, 4, 4), 2, np.uint8))}
    write_dataset(Listed([Sample("a", images, Organ.brain, "s", "train")], card()), tmp_path / "toy")
    assert ShardedDataset(tmp_path / "toy", "train").image == "t2w"
    mask = ShardedDataset(tmp_path / "toy", "train", image="mask").read(np.array([0]))
    assert mask.stacked.tolist() == [[[[2] * 4] * 4]]


def test_attributes_come_as_columns_with_nan_where_a_study_has_none(tmp_path: Path) -> None:
    ages = [{"age_years": 70.5, "months": 6.0}, {}, {"months": 12.0}]
    samples = [
        Sample(str(n), {"image": Image(PIXELS)}, Organ.brain, f"s{n}", "train", attributes=age)
        for n, age in enumerate(ages)
    ]
    write_dataset(Listed(samples, card()), tmp_path / "toy", shard_bytes=1)
    dataset = ShardedDataset(tmp_path / "toy", "train")
    assert dataset.attributes == ("age_years", "months")
    found = dataset.read(np.array([2, 0, 1])).attributes
    np.testing.assert_array_equal(found["age_years"], [np.nan, 70.5, np.nan])
    np.testing.assert_array_equal(found["months"], [12.0, 6.0, np.nan])
    assert verify(tmp_path / "toy") == []


def test_large_images_are_read_past_the_mapping_and_checked(tmp_path: Path) -> None:
    source = toy_source({"train": 9}, shape=(1, 24, 30, 40), dtype="uint8")
    write_dataset(source, tmp_path / "toy", shard_bytes=100_000)
    dataset = ShardedDataset(tmp_path / "toy", "train")
    order = np.array([5, 2, 8, 2, 0])
    truth = np.stack([source.samples[place].image.pixels for place in order])
    assert (dataset.read(order).stacked == truth).all()
    shard = tmp_path / "toy" / dataset.entry.shards[1].file
    content = bytearray(shard.read_bytes())
    content[-20_000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="toy-train-000001.tar: damaged: the pixels of sample train-0000. fail"):
        dataset.read(np.arange(9))


def test_a_batch_keeps_its_pixels_while_anything_of_it_is_held_and_then_its_memory_is_used_again(
    tmp_path: Path,
) -> None:
    source = toy_source({"train": 40}, shape=(1, 16, 32, 40), dtype="uint8")
    write_dataset(source, tmp_path / "toy")
    dataset = ShardedDataset(tmp_path / "toy", "train")
    held = [dataset.read(np.arange(first, first + 8)).stacked[3:5] for first in (0, 8, 16)]
    tensor = torch.from_numpy(dataset.read(np.arange(24, 32)).stacked)[1].flatten()
    dataset.read(np.arange(32, 40))
    for row, piece in zip((3, 11, 19), held, strict=True):
        assert (piece[0] == source.samples[row].image.pixels).all()
    assert (tensor.numpy() == source.samples[25].image.pixels.ravel()).all()
    assert len({dataset.read(np.arange(8)).stacked.ctypes.data for _ in range(4)}) == 1


def test_a_shard_without_samples_is_stepped_over(tmp_path: Path) -> None:
    manifest = write_dataset(toy_source({"train": 6}), tmp_path / "toy", shard_bytes=5000)
    with_an_empty_shard(tmp_path / "toy", manifest, places=(0, 2, 2))
    dataset = ShardedDataset(tmp_path / "toy", "train")
    truth = whole_split(tmp_path / "toy", "train")
    assert [shard.samples for shard in dataset.entry.shards].count(0) == 3 and len(dataset) == 6
    assert truth.label_BL[:, 0].tolist() == [0, 1, 2, 0, 1, 2] and verify(tmp_path / "toy") == []
    assert dataset.read(np.array([], np.int64)).stacked.shape == (0, 1, 4, 5)
