"""What heads over tokens and bags cannot learn from is one clear line of ``medformer finetune`` or ``predict``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, tiny_backbone

COUNT = 8
SCALES = ("--head", "mil", "--set", "head_options.scales=[1,2]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, pictures of several kinds, and tables of them."""
    folder = tmp_path_factory.mktemp("made")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        shapes = {"": (16, 16), "m": (16, 16 + 8 * (number % 2)), "t": (2, 2)}
        for kind, shape in shapes.items():
            PIL.Image.fromarray(generator.integers(0, 255, shape, np.uint8)).save(folder / f"{kind}{number}.png")
        PIL.Image.fromarray(np.full((16, 16), number, np.uint8)).save(folder / f"c{number}.png")
    for kind in ("", "m", "t", "c"):
        rows = [f"{kind}{number}.png,{'ab'[number % 2]}" for number in range(COUNT)]
        (folder / f"table{kind}.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    rows = [f"{number}.png,{'' if number == 3 else number // 2},{'ab'[number // 2 % 2]}" for number in range(COUNT)]
    (folder / "bags.csv").write_text("\n".join(["path,bag,label", *rows]) + "\n")
    t1w = [f"{number}.png,{number},t1w,{'ab'[number % 2]}" for number in range(COUNT)]
    flair = [f"c{number}.png,{number},flair,{'ab'[number % 2]}" for number in range(COUNT)]
    (folder / "one.csv").write_text("\n".join(["path,study,image,label", *t1w]) + "\n")
    (folder / "two.csv").write_text("\n".join(["path,study,image,label", *t1w, *flair]) + "\n")
    return folder


def fitted(made: Path, table: str, out: Path, *options: str) -> int:
    words = ["finetune", "--model", str(made / "tiny"), "--data", str(made), "--csv", str(made / table)]
    return main([*words, "--out", str(out), "--folds", "0", "--set", "max_steps=2", *options])


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("bags.csv", ("--head", "mil"), "row 5 of the table: the bag is empty"),
        ("tablem.csv", SCALES, "scales 1, 2 need one grid of tokens; these cases have images of different sizes"),
        ("two.csv", SCALES, "scales 1, 2 need one grid of tokens"),
        ("tablet.csv", ("--head", "spd"), "head spd: a covariance needs two tokens at least, a case has 1"),
        ("tablet.csv", ("--set", "head_options.reads=tangent"), "in no given case there are tokens that differ"),
    ],
)
def test_one_line_says_what_is_wrong(
    made: Path, tmp_path: Path, table: str, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fitted(made, table, tmp_path / "out", *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medformer: error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["ordinal", "regression"])
def test_terms_for_grades_and_numbers_are_refused_before_anything_is_read(
    tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "finetune",
        "--model",
        "medformer_nano",
        "--data",
        str(tmp_path / "none"),
        "--csv",
        str(tmp_path / "none.csv"),
    ]
    words += ["--out", str(tmp_path / "out"), "--head", "mil", "--task", task, "--set", "head_options.area=1.0"]
    assert main(words) == 2
    assert "area, sparsity and ranking are for classes and labels" in capsys.readouterr().err


def test_a_modality_that_no_training_case_has(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fitted(made, "one.csv", tmp_path / "out", "--head", "mil") == 0
    words = ["predict", str(tmp_path / "out"), "--data", str(made), "--csv", str(made / "two.csv")]
    assert main([*words, "--out", str(tmp_path / "p.csv")]) == 2
    assert "have a name that was never seen; known are" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["mil", "spd"])
def test_constant_images_and_one_token_give_finite_numbers(made: Path, tmp_path: Path, head: str) -> None:
    assert fitted(made, "tablec.csv", tmp_path / "out", "--head", head) == 0
    words = ["predict", str(tmp_path / "out"), "--data", str(made), "--csv", str(made / "tablec.csv")]
    assert main([*words, "--out", str(tmp_path / "p.csv")]) == 0
    rows = (tmp_path / "p.csv").read_text().splitlines()
    place = rows[0].split(",").index("p(a)")
    assert len(rows) == COUNT + 1 and all(0 <= float(row.split(",")[place]) <= 1 for row in rows[1:])
