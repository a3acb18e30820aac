"""Barlow Twins: redundancy reduction (Zbontar et al., ICML 2021, equations 1 and 2)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.batchnorm import standardise
from pretrain.objectives.collectives import all_reduce_sum
from pretrain.objectives.precision import full_precision
from pretrain.objectives.projector import Projector
from pretrain.objectives.views import Views

_EPS = 1e-5  # That of torch.nn.BatchNorm1d, which standardises in the reference implementation.


def barlow_twins_loss(za_BD: Tensor, zb_BD: Tensor, redundancy: float, total_rows: int) -> tuple[Tensor, Tensor]:
    """``sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2``, with ``C`` over the global batch.

    ``C = Za^T Zb / B`` for projections standardised by the mean and biased variance of the global batch.

    Args:
        za_BD: projections of the first view, own rows.
        zb_BD: projections of the second view, own rows.
        redundancy: lambda of the paper.
        total_rows: ``B``, images of all ranks together.

    Returns:
        The invariance and the weighted redundancy term; their sum is the loss, the same on every rank.
    """
    za_BD, _, _ = standardise(za_BD, total_rows, _EPS)
    zb_BD, _, _ = standardise(zb_BD, total_rows, _EPS)
    with full_precision(za_BD):
        c_DD = all_reduce_sum(za_BD.T @ zb_BD) / total_rows
    diagonal_D = torch.diagonal(c_DD)
    invariance = (1 - diagonal_D).square().sum()
    return invariance, redundancy * (c_DD.square().sum() - diagonal_D.square().sum())


@objective("barlow_twins")
class BarlowTwins(Objective):
    """Make the cross-correlation of the projections of two views the identity."""

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            redundancy: lambda of the paper.
            hidden: width of the two hidden layers of the projector.
            out: channels of the cross-correlation.
        """

        redundancy: Annotated[float, Field(ge=0)] = 0.005
        hidden: Annotated[int, Field(gt=0)] = 512
        out: Annotated[int, Field(gt=0)] = 512

    config: Config

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.projector = Projector([backbone.embed_dim, config.hidden, config.hidden, config.out], last_bias=False)

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss`` and its parts ``invariance`` and ``redundancy``."""
        za, zb = (self.projector.project(e, views.total_rows) for e in views.embeddings(backbone))
        invariance, redundancy = barlow_twins_loss(za, zb, self.config.redundancy, views.total_rows)
        return {"loss": invariance + redundancy, "invariance": invariance.detach(), "redundancy": redundancy.detach()}
