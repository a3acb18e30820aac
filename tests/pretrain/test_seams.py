"""What an objective may ask of the engine, what a run may go on from, and averages that follow on every rank."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_shards.sample import Sample
from data_shards.support.errors import ConfigError, TrainingError
from data_shards.writing.writer import write_dataset
from pretrain.backbone import Medformer
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import OBJECTIVES, Objective, Views
from pretrain.objectives.base import ObjectiveConfig, objective
from pretrain.optim import create_optimizer
from pretrain.preflight import check
from tests.data_shards.made_sources import Coloured
from tests.pretrain.objective_views import document_of
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import GroupRuntime, document


class Constant(Coloured):
    """Every pixel of every image is the same."""

    def sample(self, position: int) -> Sample:
        sample = super().sample(position)
        image = sample.images["image"]
        return replace(sample, images={"image": replace(image, pixels=np.full_like(image.pixels, 77))})


@pytest.fixture(scope="session")
def constant_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "constant"
    write_dataset(Constant(subjects=60), folder, duplicates="allow")
    return folder


DINO = {"dino": {"hidden": 8, "out": 4, "prototypes": 8, "tau": 0.5}}


@pytest.fixture
def keeper() -> Iterator[type[Objective]]:
    @objective("keeper")
    class Keeper(Objective):
        """Has a parameter that is trained in its own way, and keeps it beside the bundle."""

        seen: list[tuple[float, list[int], tuple[int, ...]]] = []

        def __init__(self, backbone: Medformer, config: ObjectiveConfig) -> None:
            super().__init__(backbone, config)
            self.scale = nn.Parameter(torch.ones(3, 3))

        def param_groups(self) -> list[dict[str, Any]]:
            return [{"params": [self.scale], "lr_scale": 0.1, "weight_decay": 0.0}]

        def forward(self, backbone: Medformer, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
            assert views.source is not None
            self.seen.append((progress, views.source.sample_B.tolist(), tuple(views.source.images.shape)))
            return {"loss": views.embeddings(backbone)[0].square().mean() * self.scale.mean()}

        def export(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            torch.save(self.scale.detach(), folder / "scale.pt")

    yield Keeper
    del OBJECTIVES["keeper"]


@pytest.mark.usefixtures("process_group")
def test_an_objective_is_told_the_progress_sees_the_source_and_keeps_what_it_exports(
    keeper: Any, shards: Path, tmp_path: Path
) -> None:
    content = document(shards, tmp_path / "out", objectives={"keeper": {}}, schedule={"max_steps": 4})
    run(PretrainConfig.model_validate(content), GroupRuntime())
    assert [progress for progress, _, _ in keeper.seen] == [0.0, 0.25, 0.5, 0.75]
    assert all(len(samples) == shape[0] > 1 for _, samples, shape in keeper.seen)
    kept = torch.load(tmp_path / "out" / "objectives" / "keeper" / "scale.pt")
    assert kept.shape == (3, 3) and not torch.equal(kept, torch.ones(3, 3))


def test_its_parameters_are_in_a_group_of_their_own(keeper: type[Objective]) -> None:
    config = document_of({"keeper": {}, "simclr": {}})
    module = PretrainModule(create_backbone(config.model), config.objectives)
    groups = create_optimizer(module, config.optimizer, 0).param_groups
    named = {id(parameter): name for name, parameter in module.named_parameters()}
    (own,) = (group for group in groups if group.get("lr_scale") == 0.1)
    assert [named[id(parameter)] for parameter in own["params"]] == ["objectives.keeper.scale"]
    assert own["weight_decay"] == 0 and sum(len(group["params"]) for group in groups) == len(named)


@pytest.mark.usefixtures("process_group")
def test_a_run_goes_on_from_a_bundle_and_says_so(shards: Path, tmp_path: Path) -> None:
    first = document(shards, tmp_path / "first", objectives={"masked": {"cells": 1}}, schedule={"max_steps": 2})
    bundle = run(PretrainConfig.model_validate(first), GroupRuntime())
    assert bundle is not None
    model = {**first["model"], "init_from": str(bundle)}
    content = document(
        shards, tmp_path / "second", model=model, schedule={"max_steps": 1}, optimizer={"lr": 1e-12, "weight_decay": 0}
    )
    second = run(PretrainConfig.model_validate(content), GroupRuntime())
    assert second is not None
    before, after = (load_file(folder / "model.safetensors") for folder in (bundle, second))
    assert all(torch.allclose(after[name], tensor, atol=1e-6) for name, tensor in before.items())
    origin = json.loads((second / "provenance.json").read_text())["init_from"]
    assert origin["provenance"]["objectives"] == ["masked"] and len(origin["weights_sha256"]) == 64
    content["model"] = {**model, "kwargs": {"embed_dim": 16, "num_heads": 2}}
    with pytest.raises(ConfigError, match=r"model\.init_from: .*first/bundle holds medformer_nano .* they must agree"):
        check(PretrainConfig.model_validate(content), 1, resume=False)


class Watched:
    """What a step leaves in the objective, the last one overwriting those before.

    Args:
        after_step: of the module.
    """

    def __init__(self, after_step: Callable[[PretrainModule, float], None]) -> None:
        self._after_step = after_step
        self.state: dict[str, Tensor] = {}

    def __get__(self, module: PretrainModule, owner: type) -> Callable[[float], None]:
        def step(progress: float) -> None:
            self._after_step(module, progress)
            state = module.objectives["dino"].state_dict()
            self.state = {name: value.detach().clone() for name, value in state.items()}

        return step


def averages_follow(rank: int, world_size: int, shards: Path, folder: Path) -> dict[int, dict[str, Tensor]]:
    """The last checkpoint of two ranks at every ZeRO stage, and the averages in it."""
    found = {}
    for stage in (0, 1, 2):
        content = document(
            shards,
            folder / str(stage),
            objectives=DINO,
            schedule={"max_steps": 3},
            deepspeed={"zero_optimization": {"stage": stage}},
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PretrainModule, "after_step", watched := Watched(PretrainModule.after_step))
            run(PretrainConfig.model_validate(content), GroupRuntime())
        found[stage] = watched.state
    return found


@pytest.mark.slow
def test_averages_and_centres_move_alike_on_every_rank_at_every_stage(shards: Path, tmp_path: Path) -> None:
    first, second = run_ranks(averages_follow, 2, shards, tmp_path)
    torch.manual_seed(3)
    config = document(shards, tmp_path, objectives=DINO)
    start = (
        PretrainModule(
            create_backbone(PretrainConfig.model_validate(config).model),
            PretrainConfig.model_validate(config).objectives,
        )
        .objectives["dino"]
        .state_dict()
    )
    for stage in (0, 1, 2):
        assert all(torch.equal(tensor, second[stage][name]) for name, tensor in first[stage].items())
        weights = [name for name in start if name.startswith("teacher") and name.endswith("weight")]
        assert sum(not torch.equal(first[stage][name], start[name]) for name in weights) > len(weights) // 2
        assert first[stage]["centre_K"].abs().sum() > 0
        torch.testing.assert_close(first[stage], first[0], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("process_group")
def test_constant_images_end_a_run_with_one_line_where_an_objective_can_collapse(
    constant_shards: Path, tmp_path: Path
) -> None:
    content = document(
        constant_shards,
        tmp_path / "out",
        objectives={"swav": {"hidden": 8, "out": 4, "prototypes": 8}},
        views=dict.fromkeys(["noise", "contrast", "brightness", "gamma", "colour"]),
        model={"metadata_dropout": 0.0, "kwargs": document(tmp_path, tmp_path)["model"]["kwargs"]},
        health={"min_embedding_std": 0.02, "patience": 2},
        schedule={"max_steps": 4},
    )
    with pytest.raises(TrainingError, match="representation collapsed"):
        run(PretrainConfig.model_validate(content), GroupRuntime())
