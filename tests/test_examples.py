"""The examples run as they stand, in the order in which a reader would try them."""

from __future__ import annotations

import itertools
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from finetune.heads import HEADS
from pretrain.objectives import OBJECTIVES
from tests.documents import ROOT
from tests.pretrain.ranks import run_ranks
from tests.registries import restored

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "synthetic.py")
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
RUN_HERE = {"finetune_folder.py", "predict_and_explain.py", "own_head.py", "own_objective.py", "pretrain_small.py"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new current folder; scripts find what stands beside them, and what they register is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["example"])
    with restored(HEADS, OBJECTIVES):
        yield tmp_path
    sys.modules.pop("synthetic", None)


def run(name: str) -> dict[str, object]:
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_run_here() -> None:
    assert set(SCRIPTS) == RUN_HERE
    assert NOTEBOOKS == ["embeddings.ipynb", "finetune_folder.ipynb"]


def test_a_folder_is_fine_tuned_and_its_classifier_predicts_and_explains(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("finetune_folder.py")
    said = capsys.readouterr().out
    assert said.startswith("24 cases, classes healthy, lesion\n") and "AUC" in said
    run("predict_and_explain.py")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[-1] == "6 maps: runs/example/maps/maps.html"
    assert (place / "runs/example/maps/maps.html").is_file()


def test_a_head_of_ones_own_is_set_against_the_linear_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("own_head.py")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["linear", "mean_max"] and all("AUC" in line for line in lines)


def test_an_objective_of_ones_own_is_trained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = run("own_objective.py")["main"]
    first = capsys.readouterr().out.splitlines()
    assert callable(main) and len(first) == 12 and "alignment_uniformity/uniformity" in first[0]


@pytest.mark.slow
def test_that_objective_has_on_two_ranks_the_gradient_of_one_process() -> None:
    (alone,) = run_ranks(gradient, 1)
    for found in run_ranks(gradient, 2):
        torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-12)


def gradient(rank: int, world_size: int) -> torch.Tensor:
    """With respect to a linear map, averaged over ranks that hold different data."""
    loss = runpy.run_path(str(EXAMPLES / "own_objective.py"))["alignment_and_uniformity"]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    views = torch.randn(2, 11, 6, generator=generator, dtype=torch.float64) * torch.linspace(1, 3, 11)[:, None]
    edges = [11 * place // world_size for place in range(world_size + 1)]
    rows = tuple(high - low for low, high in itertools.pairwise(edges))
    own = slice(edges[rank], edges[rank + 1])
    sum(loss(*(views[:, own] @ weight), 2.0, rows)).backward()
    assert weight.grad is not None
    if world_size > 1:
        torch.distributed.all_reduce(weight.grad)
    return weight.grad / world_size


@pytest.mark.slow
def test_the_pretraining_leaves_a_bundle(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("deepspeed")
    run("pretrain_small.py")
    assert "runs/example/pretraining/run/bundle: " in capsys.readouterr().out
    assert (place / "runs/example/pretraining/run/bundle/model.safetensors").is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_cells_of_a_notebook_run_and_none_was_saved_with_what_it_gave(name: str, place: Path) -> None:
    cells = [cell for cell in json.loads((EXAMPLES / name).read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    namespace: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), namespace)
    assert plt.get_fignums() == []
