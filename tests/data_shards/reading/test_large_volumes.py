"""A CT of 512 x 512 x 300 voxels of 16 bits: a crop of 96^3 reads less than a tenth of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_shards.reading.cropped import Crop, CroppedDataset
from data_shards.storage import Cache
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.data_shards.reading.test_crops import own_crops
from tests.data_shards.storage.server import Server

pytestmark = pytest.mark.slow

SHAPE = (1, 300, 512, 512)
CROP = 96


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, np.ndarray]]:
    """One shard of 157 MB."""
    pixels = np.random.default_rng(0).integers(-1024, 3072, SHAPE, np.int16)
    folder = tmp_path_factory.mktemp("large") / "ct"
    write_dataset(Listed([toy_sample("ct", pixels=pixels)], card()), folder)
    yield folder, pixels
    next(folder.glob("*.tar")).unlink()


def bytes_read() -> int:
    """What this process has asked the system for by reading, of files, pipes and sockets (proc(5), rchar)."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def crops(where: Path | str, **options: object) -> CroppedDataset:
    return CroppedDataset(where, "train", Crop(size=CROP, per_volume=8), seed=0, **options)


def test_a_crop_reads_less_than_a_tenth_of_its_volume(large: tuple[Path, np.ndarray]) -> None:
    folder, pixels = large
    dataset = crops(folder)
    dataset.read(np.arange(1))  # the index is read and checked
    shares = []
    for number, expected in enumerate(own_crops(dataset, [pixels])):
        before = bytes_read()
        found = dataset.read(np.array([number])).stacked[0]
        shares.append((bytes_read() - before) / pixels.nbytes)
        np.testing.assert_array_equal(found, expected)
    # 96 of 300 slices, of each at most 7 bands of 16 of its 512 lines.
    assert max(shares) < 0.0701 and min(shares) > 96**2 / (300 * 512)


def test_a_crop_about_the_foreground_reads_no_more_than_four_planes_besides(large: tuple[Path, np.ndarray]) -> None:
    folder, pixels = large
    dataset = CroppedDataset(folder, "train", Crop(size=CROP, per_volume=8, foreground=1.0), seed=0)
    dataset.read(np.arange(1))  # the index is read and checked
    before = bytes_read()
    dataset.read(np.arange(8))
    assert (bytes_read() - before) / pixels.nbytes / 8 < 0.0701 + 4 / SHAPE[1] + 1e-4


def test_a_crop_asks_a_server_for_less_than_a_tenth(large: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, pixels = large
    server = Server()
    for path in folder.iterdir():
        server.files[f"/{path.name}"] = path.read_bytes()
    with server.running():
        remote = crops(server.url, cache=Cache(tmp_path / "cache", 64 << 20))  # smaller than the shard
        found = remote.read(np.arange(2)).stacked
    np.testing.assert_array_equal(found, crops(folder).read(np.arange(2)).stacked)
    (tar,) = (path for path in server.files if path.endswith(".tar"))
    assert 0 < server.sent(tar) / pixels.nbytes < 2 * 0.0701


def test_stock_webdataset_opens_the_member_as_the_array_it_is(large: tuple[Path, np.ndarray]) -> None:
    folder, pixels = large
    (sample,) = webdataset.WebDataset([str(next(folder.glob("*.tar")))], shardshuffle=False).decode()
    np.testing.assert_array_equal(sample["npy"], pixels)
