from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medformer.cli import main
from tests.data_shards.test_medmnist import breast_arrays


def test_phantoms_are_built_inspected_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "data")
    assert main(["shards", "build", "phantoms", "--set", "phantom-breast", "--size", "16", "--out", out]) == 0
    built = capsys.readouterr()
    assert "phantom-breast: 554 train, 80 val, 146 test; synthetic" in built.out
    assert "780 samples in" in built.err
    assert main(["shards", "inspect", out]) == 0
    text = capsys.readouterr().out
    for part in ("Breast ultrasound phantoms", "breast, ultrasound, planar, binary", "class 0 malignant", "1x16x16 u1"):
        assert part in text
    assert "synthetic: numerical phantoms" in text
    assert main(["shards", "verify", out]) == 0
    assert "every checksum of 3 shards is right" in capsys.readouterr().out


def test_verify_ends_with_status_2_and_names_shard_and_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "data")
    assert main(["shards", "build", "phantoms", "--set", "phantom-breast", "--size", "8", "--out", out]) == 0
    shard = tmp_path / "data" / "phantom-breast" / "phantom-breast-val-000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 4
    shard.write_bytes(content)
    capsys.readouterr()
    assert main(["shards", "verify", out]) == 2
    error = capsys.readouterr().err
    assert f"medformer: error: {shard}: sample " in error and "fail their CRC-32" in error


def test_an_unofficial_archive_is_built_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "noise.npz", **breast_arrays())
    words = ["shards", "build", "medmnist", "--set", "breastmnist", "--file", str(tmp_path / "noise.npz")]
    out = ["--out", str(tmp_path / "data")]
    assert main([*words, *out]) == 2
    assert "MD5 is" in capsys.readouterr().err and not (tmp_path / "data").exists()
    assert main([*words, "--unofficial", "noise", *out]) == 0
    assert "546 train, 78 val, 156 test; not the official archive: noise" in capsys.readouterr().out
    assert main([*words, "--unofficial", "noise", *out]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--unofficial", "noise", *out, "--overwrite"]) == 0


def test_one_archive_cannot_be_several_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shards", "build", "medmnist", "--set", "breastmnist", "--set", "bloodmnist"]
    assert main([*words, "--file", "x.npz", "--out", str(tmp_path)]) == 2
    assert "--file gives the archive of one set" in capsys.readouterr().err


def test_a_folder_that_holds_no_shards_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("inspect", "verify"):
        assert main(["shards", action, str(tmp_path / "nothing")]) == 2
        assert f"{tmp_path / 'nothing'}: not a folder of shards" in capsys.readouterr().err
