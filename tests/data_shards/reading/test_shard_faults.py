"""Damage is detected or harmless; it never yields a wrong pixel or label in silence."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_shards.format.manifest import digest_of
from data_shards.inspect.verify import verify
from data_shards.reading.reader import ShardedDataset
from data_shards.reading.records import Records
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import toy_source

SHAPE = (1, 30, 30)
SHARD, INDEX = "toy-train-000000.tar", "toy-train-000000.index.npy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(toy_source({"train": 6}), tmp_path / "toy")
    return tmp_path / "toy"


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_thousand_bit_flips_and_truncations_are_detected_or_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    write_dataset(toy_source({"train": 9, "val": 3}, shape=SHAPE), folder, shard_bytes=25_000)
    splits = {"train": 9, "val": 3}
    truth = {split: ShardedDataset(folder, split).read(np.arange(count)) for split, count in splits.items()}
    content = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert len(content) == 2 * (3 + 1) + 1
    pixels = {path: payload_bytes(path) for path in content if path.suffix == ".tar"}
    random = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for number in range(1000):
        path = list(content)[random.integers(len(content))]
        whole = content[path]
        place = int(random.integers(len(whole)))
        cut = number % 4 == 0
        path.write_bytes(
            whole[:place] if cut else whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :]
        )
        for split, count in splits.items():
            error, found = read_all(folder, split, count)
            outcomes["detected" if error else "harmless"] += 1
            if error:
                assert str(path) in error
            else:
                for name, value in vars(truth[split]).items():
                    np.testing.assert_array_equal(getattr(found, name), value)
            if error and not cut and place in pixels.get(path, {}):
                outcomes["sample named"] += 1
                assert f"sample {pixels[path][place]} fail their CRC-32" in error
        assert found_by_verify(folder, path), f"verify missed byte {place} of {path.name}"
        path.write_bytes(whole)
    assert verify(folder) == [] and min(outcomes.values()) > 5 and outcomes["detected"] > 500, outcomes


def read_all(folder: Path, split: str, count: int) -> tuple[str, Records | None]:
    """The error, or the samples."""
    try:
        return "", ShardedDataset(folder, split).read(np.arange(count))
    except DataError as error:
        return str(error), None


def payload_bytes(shard: Path) -> dict[int, str]:
    """Which sample the pixels at each byte of a shard belong to, by the tar itself."""
    owners = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            if member.name.endswith(".npy"):
                end = member.offset_data + member.size
                owners |= dict.fromkeys(range(end - math.prod(SHAPE), end), member.name.removesuffix(".npy"))
    return owners


def found_by_verify(folder: Path, path: Path) -> bool:
    try:
        return any(str(path) in finding for finding in verify(folder))
    except DataError as error:
        return path.name == "manifest.json" and str(path) in str(error)


CUT_WHILE_OPEN = """
import sys
from pathlib import Path
import numpy as np
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import DataError
folder, name = Path(sys.argv[1]), sys.argv[2]
dataset = ShardedDataset(folder, "train")
dataset.read(np.arange(6))
with open(folder / name, "r+b") as file:
    file.truncate(int(sys.argv[3]))
try:
    dataset.read(np.arange(6))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("side", [5, 160])
@pytest.mark.parametrize("name", [SHARD, INDEX])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_file_cut_while_it_is_open_is_named_and_does_not_end_the_process(
    tmp_path: Path, side: int, name: str, kept: int
) -> None:
    write_dataset(toy_source({"train": 6}, shape=(1, side, side)), tmp_path / "toy")
    done = subprocess.run(
        [sys.executable, "-c", CUT_WHILE_OPEN, str(tmp_path / "toy"), name, str(kept)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'toy' / name}: ") and "cut" in done.stdout


@pytest.mark.parametrize("name", [SHARD, INDEX, "manifest.json"])
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -3])
def test_a_truncated_file_is_named(folder: Path, name: str, kept: float) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=name):
        ShardedDataset(folder, "train")


@pytest.mark.parametrize("name", [SHARD, INDEX])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        ShardedDataset(folder, "train")
    assert any(name in finding for finding in verify(folder))


def test_verify_names_the_sample_behind_damaged_pixels_and_metadata(folder: Path) -> None:
    sample_bytes = (512 + 512) * 2
    path = folder / SHARD
    intact = path.read_bytes()
    flip(path, 8 * (3 * sample_bytes + 512 + 128 + 5))
    assert verify(folder) == [f"{path}: sample train-00003: damaged: the pixels of image fail their CRC-32"]
    path.write_bytes(intact)
    flip(path, 8 * (4 * sample_bytes + 1024 + 512 + 9))
    assert verify(folder) == [f"{path}: sample train-00004: damaged: a header, the metadata or padding"]
    path.write_bytes(intact)
    flip(path, 8 * (len(intact) - 1))
    assert verify(folder) == [f"{path}: damaged after the last sample"]
    path.write_bytes(intact[: 5 * sample_bytes + 512 + 130])
    findings = verify(folder)
    assert len(findings) == 2 and "cut off in sample train-00005; 1 samples are lost" in findings[1]


def test_a_manifest_of_another_schema_or_vocabulary_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())

    def write(**changes: object) -> None:
        changed = content | changes
        path.write_text(json.dumps(changed | {"digest": digest_of(changed)}))

    write(schema_version=99)
    with pytest.raises(DataError, match="schema version 99, this Medformer reads 2"):
        ShardedDataset(folder, "train")
    write(vocabulary={"organ": {"brain": 7}})
    with pytest.raises(DataError, match="organ 'brain' with id 7"):
        ShardedDataset(folder, "train")
    splits = json.loads(json.dumps(content["splits"]).replace(SHARD, f"../{SHARD}"))
    write(splits=splits)
    with pytest.raises(DataError, match="a file beside the manifest is expected"):
        ShardedDataset(folder, "train")
    write(surprise=1)
    with pytest.raises(DataError, match="unknown key 'surprise'"):
        ShardedDataset(folder, "train")
    write()
    ShardedDataset(folder, "train")


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder of shards"):
        ShardedDataset(tmp_path, "train")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from data_shards.support.errors import MedformerError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import toy_source
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_dataset(toy_source({"train": 400}), Path(sys.argv[1]))
except MedformerError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [1000, 50_000, 700_000])
def test_a_disk_that_refuses_gives_one_error_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "toy"), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == f"cannot write {tmp_path / 'toy'}: File too large"
    assert list(tmp_path.iterdir()) == []
