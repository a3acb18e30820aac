"""Damage is detected or harmless; it never yields a wrong pixel or label in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_shards.manifest import digest_of
from data_shards.reader import ShardedDataset
from data_shards.support.errors import DataError
from data_shards.verify import verify
from data_shards.writer import write_dataset
from tests.data_shards.sources import toy_source

SHARD, INDEX = "toy-train-000000.tar", "toy-train-000000.index.npy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(toy_source({"train": 6}), tmp_path / "toy")
    return tmp_path / "toy"


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_any_single_bit_is_detected_or_harmless(folder: Path) -> None:
    truth = ShardedDataset(folder, "train").read(np.arange(6))
    random = np.random.default_rng(0)
    messages = []
    for name in (SHARD, INDEX, "manifest.json"):
        path = folder / name
        content = path.read_bytes()
        for bit in random.choice(len(content) * 8, 150, replace=False):
            flip(path, int(bit))
            try:
                records = ShardedDataset(folder, "train").read(np.arange(6))
            except DataError as error:
                messages.append(str(error))
            else:
                assert (records.stacked == truth.stacked).all() and (records.label_BL == truth.label_BL).all(), bit
                assert (records.spacing_mm_BA == truth.spacing_mm_BA).all()
            try:
                assert verify(folder), f"verify missed bit {bit} of {name}"
            except DataError:
                assert name == "manifest.json"
            path.write_bytes(content)
    assert len(messages) > 250 and all(str(folder) in message for message in messages)
    assert verify(folder) == []


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
    with pytest.raises(DataError, match="schema version 99, this Medformer reads 1"):
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
from data_shards.writer import write_dataset
from tests.data_shards.sources import toy_source
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
