"""BYOL: bootstrap your own latent (Grill et al., NeurIPS 2020, equations 1 to 3)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.collectives import world_size
from pretrain.objectives.projector import Projector
from pretrain.objectives.teacher import follow, follower, rate_at
from pretrain.objectives.views import Views


def byol_loss(prediction_BD: Tensor, target_BD: Tensor, total_rows: int) -> Tensor:
    """``2 - 2 cos(prediction, target)``, averaged over the global batch; no gradient to the target.

    Args:
        prediction_BD: predictions, own rows.
        target_BD: projections of the target network for the other view, own rows.
        total_rows: images of all ranks together.
    """
    cosine_B = F.cosine_similarity(prediction_BD, target_BD.detach(), dim=-1)
    return (2 - 2 * cosine_B).sum() * (world_size() / total_rows)


@objective("byol")
class BYOL(Objective):
    """Predict the projection that a slowly moving average of the network makes of the other view.

    The target network is a copy of backbone and projector that takes no gradient. Its parameters and its batch-norm
    buffers follow the online ones after every step, with a rate that goes to one along a cosine.
    """

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            hidden: width of projector and predictor.
            out: channels that are compared.
            tau: rate of the moving average at the start; .996 for 1000 epochs, .99 for 100 in the paper.
        """

        hidden: Annotated[int, Field(gt=0)] = 512
        out: Annotated[int, Field(gt=0)] = 128
        tau: Annotated[float, Field(ge=0, le=1)] = 0.99

    config: Config

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.projector = Projector([backbone.embed_dim, config.hidden, config.out])
        self.predictor = Projector([config.out, config.hidden, config.out])
        self.target_backbone = follower(backbone)
        self.target_projector = follower(self.projector)

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, summed over the two directions as in the paper."""
        rows = views.total_rows
        with torch.no_grad():
            targets = [self.target_projector.project(e, rows) for e in views.embeddings(self.target_backbone)]
        projections = [self.projector.project(e, rows) for e in views.embeddings(backbone)]
        pa, pb = (self.predictor.project(z, rows) for z in projections)
        return {"loss": byol_loss(pa, targets[1], rows) + byol_loss(pb, targets[0], rows)}

    def after_step(self, backbone: Backbone, progress: float) -> None:
        """Move the target: ``tau_k = 1 - (1 - tau) (cos(pi k / K) + 1) / 2``."""
        tau = rate_at(self.config.tau, progress)
        follow(self.target_backbone, backbone, tau)
        follow(self.target_projector, self.projector, tau)
