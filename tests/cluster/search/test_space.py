"""What of a search is decided before Ray starts: keys, values, the document of the winner."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.search.document import SearchConfig
from cluster.search.outcome import Tried, best, outcome, write_table, write_winner
from cluster.search.space import with_values
from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import load, parse
from data_shards.support.errors import TrainingError
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.config import PretrainConfig

BASE: dict[str, Any] = {
    "out": "out",
    "data": {"datasets": [{"path": "shards"}], "batch_size": 16},
    "model": {"kwargs": {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}},
    "objectives": {"simclr": {"hidden": 16, "out": 8}},
    "schedule": {"max_steps": 12},
}
SEARCH: dict[str, Any] = {
    "out": "found",
    "pretrain": "run.yaml",
    "space": {"optimizer.lr": {"loguniform": [1e-5, 1e-2]}, "model.kwargs.depth": {"integers": [1, 2]}},
    "metric": "loss",
    "mode": "min",
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "shards"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=30, images_per_subject=2), folder)
    return folder


@pytest.fixture
def folder(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shards and the varied document, as current folder; Ray must not start."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "shards").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cluster.search.search.run_on_workers", lambda *_, **__: pytest.fail("Ray was started"))
    return tmp_path


@pytest.mark.parametrize(
    "space, said",
    [
        ({"optimizer.lrr": {"grid": [1]}}, "unknown key 'optimizer.lrr'; did you mean 'lr'?"),
        ({"model.kwargs.dept": {"grid": [1]}}, "unknown key 'model.kwargs.dept'; did you mean 'depth'?"),
        ({"objectives.simclr.temprature": {"grid": [1]}}, "did you mean 'temperature'?"),
        ({"model.kwargs.stem": {"choice": ["conv", "cnv"]}}, "space.model.kwargs.stem=cnv"),
        ({"optimizer.lr": {"uniform": [-1, 1]}}, "optimizer.lr"),
        ({"optimizer.lr": {"grid": [0.1], "choice": [0.1]}}, "expected one of grid, choice"),
        ({"optimizer.lr": {"loguniform": [0, 1]}}, "two rising numbers above zero"),
        ({"optimizer.lr": {"integers": [3, 3]}}, "two rising numbers"),
        ({"optimizer.lr": {"gird": [3]}}, "did you mean 'grid'?"),
        ({"out": {"grid": ["a"]}}, "space.out: out and cluster are the same for all trials"),
        ({"data.batch_size": {"integers": [1, 32]}}, "each needs two images of every batch"),
        ({"optimizer.kwargs.epsilonn": {"grid": [1]}}, "adamw refuses its arguments"),
    ],
)
def test_a_mistake_in_the_space_is_told_in_one_line_before_ray_starts(
    folder: Path, space: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "search.yaml").write_text(yaml.safe_dump({**SEARCH, "space": space}))
    assert main(["search", "search.yaml"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (folder / "found").exists()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"finetune": "run.yaml"}, "give pretrain or finetune"),
        ({"pretrain": None, "finetune": "f.yaml", "early": {"grace": 1}}, "a fine-tuning is judged once"),
        ({"pretrain": "nowhere.yaml"}, "nowhere.yaml: no such configuration file"),
        ({"mode": "least"}, "mode"),
        ({"tracking_uri": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_a_mistake_in_the_search_is_told_before_ray_starts(
    folder: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "search.yaml").write_text(yaml.safe_dump({**SEARCH, **changes}))
    assert main(["search", "search.yaml"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (folder / "found").exists()


def test_a_model_of_the_registry_is_looked_for_before_ray_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {**BASE, "model": {**BASE["model"], "init_from": "nobody@champion"}}
    base["cluster"] = {"tracking_uri": f"sqlite:///{folder}/mlflow.db"}
    (folder / "run.yaml").write_text(yaml.safe_dump(base))
    (folder / "search.yaml").write_text(yaml.safe_dump(SEARCH))
    assert main(["search", "search.yaml"]) == 2
    error = capsys.readouterr().err
    assert "no model 'nobody' in" in error and len(error.splitlines()) == 1


def test_what_is_not_the_same_search_is_not_gone_on_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "search.yaml").write_text(yaml.safe_dump(SEARCH))
    assert main(["search", "search.yaml", "--resume"]) == 2
    assert "there is no search to go on with" in capsys.readouterr().err
    (folder / "found").mkdir()
    assert main(["search", "search.yaml"]) == 2
    assert "exists already" in capsys.readouterr().err
    (folder / "found" / "search.json").write_text('{"search": "other", "base": {}}')
    assert main(["search", "search.yaml", "--resume"]) == 2
    assert "the document of the search has changed" in capsys.readouterr().err


@pytest.mark.parametrize("value", [1e-5, 0.001, 3, "patch", [0.3, 1.0], True, None, {"small": 1e-7}, "1e-5"])
def test_a_value_stands_in_the_document_as_it_was(value: Any) -> None:
    content = with_values(BASE, {"model.kwargs.depth": value, "new.inner": value})
    assert content["model"]["kwargs"]["depth"] == value and content["new"]["inner"] == value
    assert content["model"]["kwargs"]["latents"] == 2 and BASE["model"]["kwargs"]["depth"] == 1


def tried(number: int, status: Any, score: float | None, **values: Any) -> Tried:
    return Tried(number, f"x_{number - 1:05d}", values, status, score, 12)


def test_the_best_came_to_its_end_and_its_document_is_one_of_a_pretraining(tmp_path: Path) -> None:
    trials = [
        tried(1, "finished", 2.0, **{"optimizer.lr": 1e-5}),
        tried(2, "stopped", 1.0, **{"optimizer.lr": 1e-4}),
        tried(3, "finished", 1.5, **{"optimizer.lr": 1.25e-05}),
        tried(4, "failed", 0.1, **{"optimizer.lr": 1.0}),
        tried(5, "finished", math.nan, **{"optimizer.lr": 0.2}),
    ]
    winner = best(trials, "min")
    assert winner is trials[2] and best(trials, "max") is trials[0] and best(trials[1:2], "min") is None
    config = parse(SearchConfig, {**SEARCH, "out": str(tmp_path)}, "search")
    path = write_winner(config, BASE, trials[2], 5)
    assert load(PretrainConfig, path).optimizer.lr == 1.25e-05
    assert "# loss 1.5 (min), trial 3" in path.read_text()
    rows = write_table(config, trials).read_text().splitlines()
    assert rows[0] == "trial,folder,status,loss,step,optimizer.lr,model.kwargs.depth,reason" and len(rows) == 6


def test_the_outcome_of_a_trial_says_whether_it_was_stopped_or_failed_and_why() -> None:
    last = {"score": 1.0, "step": 4, "steps_in_all": 12}
    assert outcome("a_00000", {}, last, None).status == "stopped"
    assert outcome("a_00000", {}, {**last, "step": 12}, None).status == "finished"
    failed = outcome("a_00002", {"optimizer.lr": 1.0}, last, TrainingError("loss is\nnot finite"))
    assert failed.told("loss") == "trial 3 failed (optimizer.lr=1): loss is not finite"
    assert outcome("a_00000", {}, {}, None).reason == "it ended without a report"
