"""SimCLR: the normalised temperature-scaled cross entropy (Chen et al., ICML 2020, equation 1)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data_shards.support.errors import TrainingError
from pretrain.backbone import Backbone
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.collectives import all_gather_rows, rank, world_size
from pretrain.objectives.precision import full_precision
from pretrain.objectives.projector import Projector
from pretrain.objectives.views import Views


def nt_xent(za_BD: Tensor, zb_BD: Tensor, temperature: float, rows: tuple[int, ...]) -> Tensor:
    """NT-Xent over the ``2 N`` projections of a global batch of ``N`` images.

    ``l(i, j) = -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t))`` with cosine similarity ``s``, averaged over
    both views of every image. Each rank computes the rows of its own images against all columns.

    Args:
        za_BD: projections of the first view, own rows.
        zb_BD: projections of the second view, own rows.
        temperature: ``t``.
        rows: images per rank; their sum is ``N``.

    Raises:
        TrainingError: the global batch is one image, which has nothing to be told from.
    """
    if sum(rows) < 2:
        raise TrainingError("simclr: a batch of one image, which has no other to be told from; 2 at least are needed")
    local = [F.normalize(z, dim=-1) for z in (za_BD, zb_BD)]
    everything = torch.cat([all_gather_rows(z, rows) for z in local])
    total, start = sum(rows), sum(rows[: rank()])
    own = start + torch.arange(len(za_BD), device=za_BD.device)
    itself = torch.cat([own, own + total])
    partner = torch.cat([own + total, own])
    with full_precision(za_BD):
        logits = torch.cat(local) @ everything.T / temperature
    logits = logits.scatter(1, itself[:, None], float("-inf"))
    return F.cross_entropy(logits, partner, reduction="sum") * (world_size() / (2 * total))


@objective("simclr")
class SimCLR(Objective):
    """Contrast the two views of each image with every other image of the global batch."""

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            temperature: of the softmax.
            hidden: width of the projector.
            out: channels that are compared.
        """

        temperature: Annotated[float, Field(gt=0)] = 0.2
        hidden: Annotated[int, Field(gt=0)] = 512
        out: Annotated[int, Field(gt=0)] = 128

    config: Config

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.projector = Projector([backbone.embed_dim, config.hidden, config.out])

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``."""
        za, zb = (self.projector.project(e, views.total_rows) for e in views.embeddings(backbone))
        return {"loss": nt_xent(za, zb, self.config.temperature, views.rows)}
