"""Values of every dtype through shards, bit for bit, plain and gzipped; and what may not be stored."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import webdataset

from data_shards.format.codecs import decode
from data_shards.format.index import Codec
from data_shards.format.tar import packed
from data_shards.inspect.verify import verify
from data_shards.intensity import BYTES, Rule, Window, Windows, ZScore
from data_shards.prepare import Ruled
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image
from data_shards.sources.images.nifti import read_nifti
from data_shards.sources.phantoms import Phantoms
from data_shards.stream import SampleStream
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.data_shards.writing.test_writer import hashes

DTYPES = ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f2", "<f4", "<f8")
WINDOWS = Windows(windows=(Window.model_validate("lung"), Window.model_validate("mediastinum")))


def extremes(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random bits with the ends of the dtype, its smallest steps and, of floats, both zeros and subnormals."""
    kind = np.dtype(dtype)
    bits = np.random.default_rng(seed).integers(0, 256, int(np.prod(shape)) * kind.itemsize, np.uint8)
    values = bits.view(kind).copy()
    if kind.kind == "f":
        limits = np.finfo(kind)
        values[~np.isfinite(values)] = 1
        # Sums of squares of more are no float64, which the statistics of a manifest are.
        most = min(float(limits.max), 1e150)
        values[np.abs(values.astype(np.float64)) > most] = 1
        values[:6] = [-most, most, limits.tiny, limits.smallest_subnormal, -0.0, 0.0]
    else:
        values[:2] = [np.iinfo(kind).min, np.iinfo(kind).max]
    return values.reshape(shape)


def source(dtype: str, shape: tuple[int, ...] = (1, 5, 6, 7), count: int = 7) -> Listed:
    splits = ("train", "train", "val")
    samples = [
        toy_sample(f"s-{number}", split=splits[number % 3], pixels=extremes(dtype, shape, number))
        for number in range(count)
    ]
    return Listed(samples, card())


def stored(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Key and pixels as the reader gives them."""
    for split in ("train", "val"):
        dataset = ShardedDataset(folder, split)
        records = dataset.read(np.arange(len(dataset)))
        yield from zip([key.decode() for key in records.key_B.tolist()], records.stacked, strict=True)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_of_every_dtype_survives_bit_for_bit(tmp_path: Path, dtype: str, compress: bool) -> None:
    given = {sample.key: sample.image.pixels for sample in source(dtype).samples}
    write_dataset(source(dtype), tmp_path / "toy", compress=compress)
    found = dict(stored(tmp_path / "toy"))
    assert set(found) == set(given)
    for key, pixels in given.items():
        assert found[key].dtype == pixels.dtype and found[key].tobytes() == pixels.tobytes(), key
    shards = sorted(map(str, (tmp_path / "toy").glob("*.tar")))
    suffix = "npy.gz" if compress else "npy"
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():  # stock, with its own decoders
        assert sample[suffix].tobytes() == given[sample["__key__"]].tobytes()
    assert verify(tmp_path / "toy") == []


def test_a_stream_of_16_bits_gives_the_values_to_any_number_of_ranks(tmp_path: Path) -> None:
    given = {sample.key: sample.image.pixels for sample in source("<u2").samples if sample.split == "train"}
    write_dataset(source("<u2"), tmp_path / "toy")
    dataset = ShardedDataset(tmp_path / "toy", "train")
    order = [given[key] for key in (f"s-{n}" for n in (0, 1, 3, 4, 6))]
    whole = next(iter(SampleStream([dataset], batch_size=5, seed=1)))
    assert whole.images.dtype == torch.uint16
    for row, place in enumerate(whole.sample_B.tolist()):
        assert np.array_equal(whole.images[row].numpy(), order[place])
    parts = [next(iter(SampleStream([dataset], batch_size=5, seed=1, rank=r, world_size=2))).images for r in (0, 1)]
    assert np.array_equal(np.concatenate([part.numpy() for part in parts]), whole.images.numpy())


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzipped"])
def test_two_workers_write_the_bytes_of_one(tmp_path: Path, compress: bool) -> None:
    made = Ruled(source("<i2", count=40), {"*": ZScore()}, "int16")
    for workers in (1, 2):
        write_dataset(made, tmp_path / str(workers), workers=workers, shard_bytes=20_000, compress=compress)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")
    assert len(list((tmp_path / "1").glob("*.tar"))) > 3


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("phantom-abdomen-ct-2d", "<i2"),
        ("phantom-brain-mri-2d", "<u2"),
        ("phantom-chest-xray", "<f4"),
    ],
)
def test_phantoms_keep_their_native_values(tmp_path: Path, name: str, dtype: str) -> None:
    made = Phantoms(name, size=16, subjects=6, dtype="native")
    write_dataset(made, tmp_path / "made")
    given = {sample.key: sample.image.pixels for sample in made}
    for split in ShardedDataset(tmp_path / "made", "train").manifest.splits:
        dataset = ShardedDataset(tmp_path / "made", split)
        records = dataset.read(np.arange(len(dataset)))
        assert records.stacked.dtype == np.dtype(dtype)
        for key, pixels in zip(records.key_B.tolist(), records.stacked, strict=True):
            assert pixels.tobytes() == given[key.decode()].tobytes()


def test_real_volumes_have_the_values_of_nibabel(tmp_path: Path, shared_data: Path) -> None:
    samples, truth = [], {}
    for number, path in enumerate(sorted((shared_data / "nifti").glob("*.nii*"))):
        volume = nibabel.load(path)
        if volume.ndim != 3:
            continue
        image = read_nifti(path)
        samples.append(replace(toy_sample(f"n-{number}", pixels=image.pixels), images={"image": image}))
        # nibabel's own values on the axes of our image: the reorientation is compared in the tests of the source.
        truth[f"n-{number}"] = np.sort(np.asarray(volume.dataobj, np.float64), axis=None)
    assert len(samples) >= 3
    write_dataset(Listed(samples, card()), tmp_path / "nifti")
    dataset = ShardedDataset(tmp_path / "nifti", "train")
    records = dataset.read(np.arange(len(dataset)))
    for key, pixels in zip(records.key_B.tolist(), records.images, strict=True):
        np.testing.assert_allclose(np.sort(pixels.astype(np.float64), axis=None), truth[key.decode()], rtol=1e-6)


def test_rules_go_into_the_manifest_by_image_name_and_not_to_masks(tmp_path: Path) -> None:
    pixels = np.full((1, 4, 4), 100, np.int16)
    sample = toy_sample("a", pixels=pixels)
    mask = Image(np.zeros((1, 4, 4), np.uint8))
    sample = replace(sample, images={"ct": sample.image, "mr": Image(pixels + 1), "mask": mask})
    rules: dict[str, Rule] = {"ct": WINDOWS, "*": ZScore()}
    manifest = write_dataset(Ruled(Listed([sample], card()), rules), tmp_path / "toy")
    assert manifest.intensity == {"ct": WINDOWS, "mr": ZScore()}
    assert ShardedDataset(tmp_path / "toy", "train", image="ct").intensity == WINDOWS
    assert ShardedDataset(tmp_path / "toy", "train", image="mask").intensity is None
    with pytest.raises(
        DataError, match="intensity.pet: no study has an image 'pet'; valid: ct, mask, mr; a rule for every image"
    ):
        write_dataset(Ruled(Listed([sample], card()), {"pet": WINDOWS}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("pixels", "rule", "stored_as", "said"),
    [
        (np.array([0, 40000], np.uint16), ZScore(), "int16", "uint16 values from 0 to 40000 are not all int16 values"),
        (np.array([-1, 5], np.int16), ZScore(), "uint16", "int16 values from -1 to 5 are not all uint16 values"),
        (np.array([0, 1 / 3], np.float32), ZScore(), "float16", "are not all float16 values"),
        (np.array([0, np.inf], np.float32), ZScore(), None, "1 of 2 values are infinite or no numbers"),
        (np.array([0, np.nan], np.float32), WINDOWS, "float32", "1 of 2 values are infinite or no numbers"),
        (np.array([64512, 64], np.uint16), WINDOWS, None, "no Hounsfield units: unsigned values were read as signed"),
        (np.array([0, 300], np.int16), BYTES, None, "rule bytes is for unsigned 8 bits, found int16"),
    ],
)
def test_values_that_do_not_fit_stop_the_build(
    tmp_path: Path, pixels: np.ndarray, rule: Rule, stored_as: str | None, said: str
) -> None:
    made = Listed([toy_sample("a", pixels=pixels[None, None])], card())
    with pytest.raises(DataError, match=said) as raised:
        write_dataset(Ruled(made, {"*": rule}, stored_as), tmp_path / "toy")  # type: ignore[arg-type]
    assert str(raised.value).startswith("item 0: image: ") and "\n" not in str(raised.value)
    assert not (tmp_path / "toy").exists()


def test_values_that_fit_are_stored_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    shallow, deep = np.array([[[0, 7]]], np.uint8), np.array([[[-3, 9000]]], np.int16)
    made = Listed([toy_sample("a", pixels=shallow), toy_sample("b", pixels=deep)], card())
    write_dataset(Ruled(made, {"*": ZScore()}, "int16"), tmp_path / "toy")
    records = ShardedDataset(tmp_path / "toy", "train").read(np.arange(2))
    assert records.stacked.dtype == np.int16 and records.stacked.tolist() == [shallow.tolist(), deep.tolist()]


def test_unsigned_values_behind_a_manifest_that_says_signed_are_refused(tmp_path: Path) -> None:
    write_dataset(source("<u2"), tmp_path / "toy")
    dataset = ShardedDataset(tmp_path / "toy", "train")
    dataset.layout = dataset.layout.model_copy(update={"dtype": "<i2"})
    with pytest.raises(DataError, match=r"sample s-0 holds <u2, the manifest says <i2"):
        dataset.read(np.arange(2))


@pytest.mark.parametrize("damage", ["cut", "tail", "bomb", "noise"])
def test_a_damaged_gzip_member_is_refused_before_it_fills_the_memory(damage: str) -> None:
    pixels = np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5)
    sound = packed(pixels)
    assert np.array_equal(decode(sound, Codec.npy_gzip, "<i2", pixels.shape), pixels)
    bomb = gzip.compress(bytes(50 << 20))
    content = {"cut": sound[:-9], "tail": sound + b"x", "bomb": bomb, "noise": b"no gzip at all"}[damage]
    with pytest.raises(DataError, match="gzip"):
        decode(content, Codec.npy_gzip, "<i2", pixels.shape)


def test_a_gzip_member_is_what_gzip_and_numpy_open(tmp_path: Path) -> None:
    write_dataset(source("<i2"), tmp_path / "toy", compress=True)
    shard = next((tmp_path / "toy").glob("*train*.tar"))
    with tarfile.open(shard) as archive:
        names = archive.getnames()
        member = archive.extractfile(names[0])
        assert member is not None
        pixels = np.load(io.BytesIO(gzip.decompress(member.read())))
    assert names[:2] == ["s-0.npy.gz", "s-0.json"] and np.array_equal(pixels, source("<i2").samples[0].image.pixels)
