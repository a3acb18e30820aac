"""Fine-tuning alone: nothing is importable but what ``medformer`` itself asks for, and nothing of CUDA."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.documents import ROOT

requirements = pytest.importorskip("packaging.requirements")
OWN = {"data_shards", "pretrain", "finetune", "cluster", "medformer"}

SCRIPT = """
import sys
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def find_present(name, path=None, target=None):
    return None if name.partition(".")[0] in {absent!r} else find_spec(name, path, target)

PathFinder.find_spec = find_present
from medformer.cli import main
for words in {commands!r}:
    assert main(words) == 0, words
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by_itself() -> set[str]:
    """The distributions that ``medformer`` without extras needs, and what these need, without those of CUDA."""
    waiting = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found: set[str] = set()
    while waiting:
        requirement = requirements.Requirement(waiting.pop())
        name = canonical(requirement.name)
        asked = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not asked or name in found or name.startswith(("nvidia", "cuda", "triton")):
            continue
        found.add(name)
        waiting += importlib.metadata.requires(name) or []
    return found


def test_a_folder_is_fine_tuned_and_predicted_with_what_medformer_alone_brings(tmp_path: Path) -> None:
    distributions = brought_by_itself()
    assert not distributions & {"ray", "mlflow", "deepspeed", "ninja", "lightly", "transformers", "matplotlib"}
    names = importlib.metadata.packages_distributions()
    absent = {module for module, own in names.items() if not distributions & set(map(canonical, own))} - OWN
    assert absent >= {"ray", "mlflow", "deepspeed", "nvidia", "triton"} & set(names)
    lines = ["file,label,subject"]
    for number in range(24):
        pixels_HW = np.random.default_rng(number).integers(0, 256, (20, 20), dtype=np.uint8) // (1 + number % 2)
        PIL.Image.fromarray(pixels_HW).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{('bright', 'dark')[number % 2]},p{number}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    data = ["--data", str(tmp_path), "--csv", str(tmp_path / "labels.csv")]
    fitted, table = tmp_path / "fitted", tmp_path / "predictions.csv"
    commands = [
        ["finetune", "--model", "medformer_nano", *data, "--folds", "0", "--out", str(fitted)],
        ["predict", str(fitted), *data, "--out", str(table)],
    ]
    script = SCRIPT.format(absent=absent, commands=commands)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(table.read_text().splitlines()) == 25
