"""The page of mistakes: each command is run as it stands there, and prints what stands beside it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import timm
import torch

from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.documents import ROOT

PAGE = ROOT / "docs" / "mistakes.md"
ROW = re.compile(
    r"^\| (?P<what>[^|]+) \| `(?P<command>medformer [^`]+)` \| `(?P<printed>[^`]+)` \| (?P<do>[^|]+) \|$", re.M
)
ROWS = [(found["command"], found["printed"]) for found in ROW.finditer(PAGE.read_text())]


def save(file: Path, seed: int, size: int = 20) -> None:
    pixels_HW = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8) // (1 + seed % 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels_HW).save(file)


def table(file: Path, rows: list[str], head: str = "file,label,subject") -> None:
    file.write_text("\n".join([head, *rows]) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a user has it: pictures, tables with a mistake each, a model, a classifier, shards, a document."""
    folder = tmp_path_factory.mktemp("mistakes")
    rows = []
    for number in range(24):
        save(folder / "images" / f"{number:02d}.png", number)
        rows.append(f"{number:02d}.png,{('benign', 'malignant')[number % 2]},p{number // 2}")
    table(folder / "labels.csv", rows)
    table(folder / "typo.csv", rows, head="file,lable,subject")
    table(folder / "moved.csv", [*rows, "24.png,benign,p12"])
    table(folder / "one-class.csv", [row for row in rows if "benign" in row])
    splits = [f"{row},{('train', 'test')[number % 2]}" for number, row in enumerate(rows)]
    table(folder / "crossed.csv", splits, head="file,label,subject,split")
    for number in range(4):
        save(folder / "larger-images" / f"{number}.png", number, size=30)
        save(folder / "damaged-images" / f"{number}.png", number)
    (folder / "damaged-images" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    torch.manual_seed(0)
    backbone = timm.create_model("medformer_nano", num_classes=0, depth=1)
    save_bundle(folder / "runs/models/chest", backbone, "medformer_nano", {"depth": 1}, {}, {})
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=6, images_per_subject=1), folder / "runs/shards/knees")
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        finetune = "finetune --model runs/models/chest --data images --csv labels.csv --folds 0 --out runs/mine"
        assert main(shlex.split(finetune)) == 0
    return folder


def test_there_are_twenty_of_them_and_every_row_of_the_tables_is_read() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "`medformer" in line]
    assert len(ROWS) == len(rows) == 20


@pytest.mark.parametrize(("command", "printed"), ROWS, ids=[command[10:60] for command, _ in ROWS])
def test_a_mistake_prints_the_line_of_the_page_and_leaves_nothing_behind(
    command: str, printed: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    try:
        status = main(shlex.split(command)[1:])
    except SystemExit as end:  # of argparse
        status = end.code
    lines = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert status == 2 and len(lines) == 1, lines
    message = lines[0].partition("error: ")[2]
    wanted = ".*".join(map(re.escape, printed.split("…")))
    assert re.fullmatch(wanted, message), f"\n{message}\nis not\n{printed}"
    assert sorted(place.rglob("*")) == before
