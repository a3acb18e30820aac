"""``medformer embed``: the features of the API in a file that other programs read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.backbones import load_pretrained
from finetune.fit.features import summaries
from finetune.heads.features import SUMMARIES
from finetune.readers import read_cases
from medformer.cli import main
from pretrain.bundle import save_bundle
from pretrain.tiling import SlidingWindows
from tests.finetune.samples import TINY, blobs, tiny_backbone


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and twelve images with a table of a class, a split and two labels."""
    folder = tmp_path_factory.mktemp("made")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    cases = blobs(12, seed=1)
    lines = ["file,label,x,y,split"]
    (folder / "images").mkdir()
    for index, (pixels, place) in enumerate(zip(cases.images, cases.targets, strict=True)):
        np.save(folder / "images" / f"{index}.npy", pixels)
        lines.append(f"{index}.npy,{('left', 'right')[place]},{place},{index // 6},{'train' if index < 8 else 'test'}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def embed(made: Path, out: Path, *words: str) -> int:
    return main(["embed", str(made / "tiny"), "--data", str(made / "images"), "--out", str(out), *words])


@pytest.mark.parametrize("reads", SUMMARIES)
def test_every_read_is_that_of_the_api_with_key_split_and_label(made: Path, tmp_path: Path, reads: str) -> None:
    assert embed(made, tmp_path / "f.npz", "--csv", str(made / "table.csv"), "--reads", reads) == 0
    splits = read_cases(made / "images", csv=made / "table.csv")
    backbone = load_pretrained(made / "tiny").backbone
    expected = np.concatenate([summaries(backbone, part).read(reads) for part in splits.values()])
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert found["features"].dtype == np.float32
        np.testing.assert_allclose(found["features"], expected, atol=1e-6)
        assert found["split"].tolist() == [name for name, part in splits.items() for _ in range(len(part))]
        assert found["key"].tolist() == [str(key) for part in splits.values() for key in part.keys]
        assert found["label"].tolist() == [
            part.classes[int(index)] for part in splits.values() for index in part.targets
        ]


def test_parquet_has_a_row_for_each_case_and_a_column_for_each_number(made: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    words = ["--csv", str(made / "table.csv"), "--labels", "x", "y"]
    assert embed(made, tmp_path / "f.parquet", *words) == 0
    assert embed(made, tmp_path / "f.npz", *words) == 0
    table = parquet.read_table(tmp_path / "f.parquet")
    with np.load(tmp_path / "f.npz") as arrays:
        assert table.column_names == ["key", "split", "label", *(f"f{number}" for number in range(32))]
        features = np.stack([table[f"f{number}"].to_numpy() for number in range(32)], axis=1)
        np.testing.assert_array_equal(features, arrays["features"])
        assert [list(row) for row in table["label"].to_pylist()] == arrays["label"].tolist()


def test_rows_that_are_left_out_are_told(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("file,label\n0.npy,a\n1.npy,NaN\n2.npy,b\n")
    assert embed(made, tmp_path / "a.npz", "--csv", str(tmp_path / "t.csv")) == 0
    printed = capsys.readouterr().out
    assert "t: warning: 1 of 3 rows have no label and are left out: 3\n" in printed and "2 cases, " in printed


def test_labels_are_not_needed_and_a_split_is_picked(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(made, tmp_path / "a.npz") == 0
    assert "12 cases, 32 numbers each\n" in capsys.readouterr().out
    with np.load(tmp_path / "a.npz") as found:
        assert set(found["label"].tolist()) == {""} and set(found["split"].tolist()) == {"train"}
        every = found["features"]
    (made / "bare.csv").write_text("file\n3.npy\n7.npy\n")
    assert embed(made, tmp_path / "c.npz", "--csv", str(made / "bare.csv")) == 0
    with np.load(tmp_path / "c.npz") as found:
        assert found["label"].tolist() == ["", ""] and found["key"].tolist() == ["row 2", "row 3"]
        np.testing.assert_allclose(found["features"][0], every[sorted(map(str, range(12))).index("3")], atol=1e-6)
    assert embed(made, tmp_path / "b.npz", "--csv", str(made / "table.csv"), "--split", "test") == 0
    with np.load(tmp_path / "b.npz") as found:
        assert len(found["features"]) == 4 and set(found["split"].tolist()) == {"test"}


def test_a_fresh_network_is_fixed_by_its_seed_and_said_to_be_random(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, seed in enumerate((1, 1, 2)):
        words = ["embed", "medformer_nano", "--data", str(made / "images"), "--set", f"seed={seed}"]
        assert main([*words, "--out", str(tmp_path / f"{number}.npz")]) == 0
        assert "note: medformer_nano is a fresh network: its features are random" in capsys.readouterr().out
    first, same, other = (np.load(tmp_path / f"{number}.npz")["features"] for number in range(3))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other, atol=1e-3)


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.npz").write_text("mine")
    (tmp_path / "notes").mkdir()
    for out, words, message in (
        ("f.csv", [], "expected a name that ends in .npz or .parquet"),
        ("f.npz", ["--reads", "maen"], "found 'maen'"),
        ("f.npz", ["--split", "test"], "no split 'test'; valid: train"),
        ("f.npz", ["--labels", "x"], "label columns are named and there is no table"),
        ("f.npz", ["--data", str(tmp_path / "notes")], "notes"),
        ("there.npz", [], "exists already"),
    ):
        assert embed(made, tmp_path / out, *words) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "there.npz"]
    assert (tmp_path / "there.npz").read_text() == "mine"


@pytest.mark.parametrize("reads", ["embedding", "embedding_mean_spread"])
def test_windows_give_what_the_api_gives_of_them_and_change_nothing_where_one_covers_an_image(
    made: Path, tmp_path: Path, reads: str
) -> None:
    for name, words in (("w", ["--window", "8"]), ("less", ["--window", "8", "8", "--overlap", "0"]), ("whole", [])):
        assert embed(made, tmp_path / f"{name}.npz", "--reads", reads, *words) == 0
    assert embed(made, tmp_path / "covered.npz", "--reads", reads, "--window", "16") == 0
    found = {name: np.load(tmp_path / f"{name}.npz")["features"] for name in ("w", "less", "whole", "covered")}
    np.testing.assert_allclose(found["covered"], found["whole"], atol=1e-5)
    (cases,) = read_cases(made / "images", csv=None, label="none").values()
    for name, overlap in (("w", 0.5), ("less", 0.0)):
        network = SlidingWindows(load_pretrained(made / "tiny").backbone, 8, overlap)
        expected = summaries(network, cases, dense=reads != "embedding").read(reads)
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
        assert np.abs(found[name] - found["whole"]).max() > 1e-3


def test_windows_that_the_network_cannot_read_are_one_line(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["--window", "6"], "window 6: a multiple of 4, the voxels of a token, is expected"),
        (["--window", "8", "8", "8"], "window (8, 8, 8): a number of voxels for each of the 2 axes is expected"),
        (["--window", "0"], "window.0: Input should be greater than 0; found 0"),
        (["--window", "8", "--overlap", "1"], "overlap: Input should be less than 1"),
        (["--overlap", "0.25"], "overlap is of windows, and there are none: give 'window', too, or leave it out"),
    ):
        assert embed(made, tmp_path / "f.npz", *words) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1, error
    assert not list(tmp_path.iterdir())
