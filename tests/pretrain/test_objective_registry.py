"""A new objective is one class in one file: registered, it is configured, trained and logged like the others."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Medformer
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.objectives import OBJECTIVES, Objective, Views
from pretrain.objectives.base import ObjectiveConfig, objective
from pretrain.objectives.collectives import world_size
from tests.pretrain.runs import GroupRuntime, document


@pytest.fixture
def toy() -> Iterator[type[Objective]]:
    @objective("toy")
    class Toy(Objective):
        """Bring the views of an image together on a sphere; collapses, but trains."""

        class Config(ObjectiveConfig):
            width: int = 4

        steps: list[float] = []

        def __init__(self, backbone: Medformer, config: ObjectiveConfig) -> None:
            super().__init__(backbone, config)
            self.head = nn.Linear(backbone.embed_dim, config.width)

        def forward(self, backbone: Medformer, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
            za, zb = (self.head(e) for e in views.embeddings(backbone))
            loss = (1 - nn.functional.cosine_similarity(za, zb)).sum() * (world_size() / views.total_rows)
            return {"loss": loss, "size": za.detach().norm()}

        def after_step(self, backbone: Medformer, progress: float) -> None:
            self.steps.append(progress)

    yield Toy
    del OBJECTIVES["toy"]


def test_a_registered_objective_is_trained_by_the_engine(
    toy: type[Objective], shards: Path, tmp_path: Path, process_group: None
) -> None:
    content = document(
        shards,
        tmp_path / "out",
        objectives={"toy": {"width": 3, "weight": 2.0}, "simclr": {"hidden": 8, "out": 4}},
        schedule={"max_steps": 2},
    )
    runtime = GroupRuntime()
    run(PretrainConfig.model_validate(content), runtime)
    assert toy.steps == [0.5, 1.0]
    assert runtime.reported == [1, 2]


def test_an_objective_is_registered_once_its_file_is_there(tmp_path: Path) -> None:
    import pretrain

    copy = tmp_path / "pretrain"
    shutil.copytree(Path(pretrain.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "objectives" / "added.py").write_text(
        "from pretrain.objectives.base import Objective, objective\n"
        "@objective('added')\nclass Added(Objective):\n    pass\n"
    )
    script = "from pretrain import objectives\nprint(objectives.__file__, *objectives.OBJECTIVES)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, *names = done.stdout.split()
    assert file == str(copy / "objectives" / "__init__.py")
    assert "added" in names and {"barlow_twins", "byol", "simclr"} <= set(names)


def test_a_name_that_is_taken_is_refused(toy: type[Objective]) -> None:
    with pytest.raises(ConfigError, match=r"objective 'toy' of somewhere has the name of that of .*; choose another"):
        objective("toy")(type("Other", (Objective,), {"__module__": "somewhere"}))
    assert OBJECTIVES["toy"] is toy
    assert objective("toy")(toy) is toy


def test_its_parameters_are_checked_by_its_own_document(toy: type[Objective], shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"objectives\.toy.*'widht'.*did you mean 'width'"):
        PretrainConfig.model_validate(document(shards, tmp_path, objectives={"toy": {"widht": 3}}))


def test_an_unknown_objective_names_the_nearest(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown objective 'simclrr'; did you mean 'simclr'"):
        PretrainConfig.model_validate(document(shards, tmp_path, objectives={"simclrr": {}}))


@pytest.mark.parametrize("parameters", [{"temperature": 0}, {"temperature": math.nan}, {"hidden": "wide"}])
def test_values_out_of_range_are_refused(parameters: dict[str, object], shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"objectives\.simclr: {next(iter(parameters))}"):
        PretrainConfig.model_validate(document(shards, tmp_path, objectives={"simclr": parameters}))


def test_losses_are_summed_by_weight(toy: type[Objective]) -> None:
    import timm

    from pretrain.metadata import Metadata
    from pretrain.module import PretrainModule

    torch.manual_seed(0)
    backbone = timm.create_model("medformer_nano", embed_dim=32, depth=1, num_heads=2, latents=2)
    module = PretrainModule(backbone, {"toy": {"weight": 0.25}, "simclr": {"hidden": 8, "out": 4, "weight": 3.0}})
    pictures = tuple(torch.rand(4, 1, 8, 8) for _ in range(2))
    loss, parts = module(Views(pictures, (Metadata.uniform(4),) * 2, (4,), (None, None)))
    assert set(parts) == {"toy/loss", "toy/size", "simclr/loss"} and not any(p.requires_grad for p in parts.values())
    torch.testing.assert_close(loss.detach(), 0.25 * parts["toy/loss"] + 3.0 * parts["simclr/loss"])
