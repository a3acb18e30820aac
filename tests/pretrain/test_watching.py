"""Looking at a run does not change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from pretrain.backbone import Medformer
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.health import watched_embeddings
from pretrain.metadata import Metadata
from pretrain.meter import read_metrics
from pretrain.objectives import OBJECTIVES, Objective, Views
from pretrain.objectives.base import ObjectiveConfig, objective
from pretrain.objectives.collectives import world_size
from tests.pretrain.runs import GroupRuntime, document

STEPS = 6


class Unsteady(nn.Module):
    """What differs between training and evaluation, and leaves a trace: batch normalisation and dropout."""

    def __init__(self, norm: nn.Module, dim: int) -> None:
        super().__init__()
        self.norm, self.batch, self.drop = norm, nn.BatchNorm1d(dim), nn.Dropout(0.2)

    def forward(self, x_BQD: Tensor) -> Tensor:
        x_BQD = self.norm(x_BQD)
        return self.drop(self.batch(x_BQD.flatten(0, 1)).view_as(x_BQD))


@pytest.fixture
def tokens_only() -> Iterator[str]:
    @objective("tokens_only")
    class TokensOnly(Objective):
        """Bring the mean tokens of the views together; never asks for embeddings."""

        def __init__(self, backbone: Medformer, config: ObjectiveConfig) -> None:
            super().__init__(backbone, config)
            backbone.norm = Unsteady(backbone.norm, backbone.embed_dim)

        def forward(self, backbone: Medformer, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
            means = []
            for view in zip(views.images, views.metadata, views.spacing_mm, strict=True):
                tokens_BTD = backbone.features(*view, dense=True).tokens_BTD
                assert tokens_BTD is not None
                means.append(tokens_BTD.mean(dim=1))
            return {"loss": (means[0] - means[1]).square().mean(dim=1).sum() * (world_size() / views.total_rows)}

    yield "tokens_only"
    del OBJECTIVES["tokens_only"]


@pytest.mark.usefixtures("process_group")
def test_weights_buffers_and_losses_do_not_depend_on_how_often_a_run_is_logged(
    tokens_only: str, shards: Path, tmp_path: Path
) -> None:
    kwargs = {"embed_dim": 32, "depth": 3, "num_heads": 2, "latents": 2, "drop_path_rate": 0.5}
    bundles, losses = [], []
    for every in (1, 4, 1000):
        content = document(
            shards,
            tmp_path / str(every),
            objectives={tokens_only: {}},
            model={"kwargs": kwargs},
            schedule={"max_steps": STEPS},
            checkpoint={"every_steps": 1000},
            log_every_steps=every,
        )
        config = PretrainConfig.model_validate(content)
        run(config, GroupRuntime())
        bundles.append((config.out / "bundle" / "model.safetensors").read_bytes())
        losses.append([(line["step"], line["loss"]) for line in read_metrics(config.out / "metrics.jsonl")])
    assert bundles[0] == bundles[1] == bundles[2]
    assert [[step for step, _ in lines] for lines in losses] == [list(range(1, STEPS + 1)), [4, STEPS], [STEPS]]
    assert losses[2][0][1] == pytest.approx(sum(loss for _, loss in losses[0]) / STEPS, rel=1e-6)


def backbone() -> Medformer:
    torch.manual_seed(0)
    model = timm.create_model(
        "medformer_nano", num_classes=0, embed_dim=32, depth=3, num_heads=2, latents=2, drop_path_rate=0.5
    )
    model.norm = Unsteady(model.norm, 32)
    return model.train()


def views(rows: int = 6) -> Views:
    generator = torch.Generator().manual_seed(0)
    images = tuple(torch.rand(rows, 1, 8, 8, generator=generator) for _ in range(2))
    return Views(images, (Metadata.uniform(rows),) * 2, (rows,), (None, None))


def test_a_look_leaves_buffers_modes_generators_and_gradients_as_they_were() -> None:
    model, given = backbone(), views()
    model.blocks[0].eval()  # frozen by an objective, say
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    embedding_BD = watched_embeddings(given, model)[0]
    assert not embedding_BD.requires_grad
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(watched_embeddings(given, model)[0], embedding_BD)


def test_a_look_takes_what_was_trained_on() -> None:
    model, given = backbone(), views()
    trained_on = given.embeddings(model)
    found = watched_embeddings(given, model)[0]
    assert torch.equal(found, trained_on[0]) and not found.requires_grad


def test_embeddings_made_without_gradient_are_not_given_to_those_who_train() -> None:
    model, given = backbone(), views()
    with torch.no_grad():
        constant = given.embeddings(model)
        assert given.embeddings(model) is constant
    trained = given.embeddings(model)
    assert not constant[0].requires_grad and trained[0].requires_grad
    assert given.embeddings(model) is trained
    trained[0].sum().backward()
    assert model.query.grad is not None
    model.eval()
    assert given.embeddings(model) is not trained
    with torch.no_grad():
        assert given.embeddings(model)[0].requires_grad is False
    assert given.embeddings(backbone()) is not trained
