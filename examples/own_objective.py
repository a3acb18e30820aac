"""An objective of one's own: alignment and uniformity (Wang and Isola, ICML 2020), trained for a few steps.

An objective is a class with a name. As a file in ``pretrain/objectives/``, or in a package with an entry point, it is
named by documents of ``medformer pretrain`` too::

    python examples/own_objective.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data_shards.sources.phantoms import Phantoms
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.documents import parse
from medformer import ShardedDataset, write_dataset
from pretrain.backbone import Backbone
from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.collectives import all_gather_rows, world_size
from pretrain.objectives.projector import Projector
from pretrain.objectives.views import Views
from pretrain.view_factory import ViewFactory


def alignment_and_uniformity(za_BD: Tensor, zb_BD: Tensor, t: float, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The two losses of the paper with alpha = 2, over the global batch.

    The mean over ranks must be the whole: a sum over own rows is multiplied by the number of ranks and divided by the
    number of all rows; what is computed of the rows of all ranks is the same on each, and stays as it is.
    """
    za_BD, zb_BD = F.normalize(za_BD, dim=1), F.normalize(zb_BD, dim=1)
    total = sum(rows)
    alignment = (za_BD - zb_BD).square().sum() * (world_size() / total)
    uniformity = za_BD.new_zeros(())
    for z_BD in (za_BD, zb_BD):
        every_ND = all_gather_rows(z_BD, rows)
        kernel_NN = (-t * (every_ND[:, None] - every_ND[None]).square().sum(dim=2)).exp()
        kernel_NN = kernel_NN - torch.diag_embed(kernel_NN.diagonal())
        uniformity = uniformity + (kernel_NN.sum() / (total * (total - 1))).log() / 2
    return alignment, uniformity


@objective("alignment_uniformity")
class AlignmentUniformity(Objective):
    """Keep the two views of an image together, and all images spread evenly over the sphere."""

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            t: of the Gaussian potential.
            hidden: width of the projector.
            out: channels that are compared.
        """

        t: Annotated[float, Field(gt=0)] = 2.0
        hidden: Annotated[int, Field(gt=0)] = 128
        out: Annotated[int, Field(gt=0)] = 32

    config: Config

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.projector = Projector([backbone.embed_dim, config.hidden, config.out])

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss`` and its two parts."""
        za_BD, zb_BD = (self.projector.project(e, views.total_rows) for e in views.embeddings(backbone))
        alignment, uniformity = alignment_and_uniformity(za_BD, zb_BD, self.config.t, views.rows)
        return {"loss": alignment + uniformity, "alignment": alignment, "uniformity": uniformity}


def main(shards: Path = Path("runs/example/brains"), steps: int = 12) -> list[float]:
    """Train a small network by it, as a document of a pretraining asks for it; returns the losses.

    The loop is here to be seen; ``medformer pretrain`` has checkpoints, ranks, schedules and health checks besides.
    """
    phantoms = Phantoms("phantom-brain-mri-2d", size=32, subjects=24, images_per_subject=4)
    write_dataset(phantoms, shards, overwrite=True)
    document = {
        "out": "runs/example/unused",
        "data": {"datasets": [{"path": str(shards)}], "batch_size": 32},
        "model": {"name": "medformer_nano", "kwargs": {"depth": 1}},
        "objectives": {"alignment_uniformity": {"t": 2.0}},
    }
    config = parse(PretrainConfig, document, "own_objective.py")
    torch.manual_seed(config.seed)
    module = PretrainModule(create_backbone(config.model), config.objectives)
    views = ViewFactory(config, torch.device("cpu"))
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    stream = SampleStream([ShardedDataset(shards, "train")], batch_size=config.data.batch_size, seed=config.seed)
    losses: list[float] = []
    for _, batch in zip(range(steps), stream, strict=False):  # the stream goes on for ever
        loss, parts = module(views(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(", ".join([f"step {len(losses)}", *(f"{name} {float(part):.3f}" for name, part in parts.items())]))
    return losses


if __name__ == "__main__":
    main()
