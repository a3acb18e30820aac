"""SwAV: swapped prediction of cluster assignments (Caron et al., NeurIPS 2020, equations 1 to 5)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.errors import TrainingError
from pretrain.backbone import Backbone
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.projector import Projector
from pretrain.objectives.prototypes import Prototypes, sinkhorn
from pretrain.objectives.reduction import global_mean
from pretrain.objectives.requests import SmallViews, ViewRequest
from pretrain.objectives.views import Views


@objective("swav")
class SwAV(Objective):
    """Predict from every other view to which prototypes a view of the image belongs."""

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            prototypes: how many.
            temperature: of the softmax of the prediction.
            epsilon: softness of the assignments.
            iterations: of Sinkhorn and Knopp.
            hidden: width of the projector.
            out: channels that are compared.
            small: further small views, which only predict.
        """

        prototypes: Annotated[int, Field(gt=1)] = 256
        temperature: Annotated[float, Field(gt=0)] = 0.1
        epsilon: Annotated[float, Field(ge=0.02)] = 0.05
        iterations: Annotated[int, Field(gt=0)] = 3
        hidden: Annotated[int, Field(gt=0)] = 512
        out: Annotated[int, Field(gt=0)] = 128
        small: SmallViews = SmallViews(count=2)

    config: Config

    @classmethod
    def asks(cls, config: Config) -> ViewRequest:
        """Two whole views, and the small ones."""
        return ViewRequest(small=config.small)

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.projector = Projector([backbone.embed_dim, config.hidden, config.out])
        self.prototypes = Prototypes(config.out, config.prototypes)

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``: the mean cross entropy over every whole view and every other view of the image.

        Raises:
            TrainingError: the global batch is one image, which would be assigned to all prototypes alike.
        """
        config, total = self.config, views.total_rows
        if total < 2:
            raise TrainingError("swav: a batch of one image, which is assigned to all prototypes alike; 2 are needed")
        whole = views.embeddings(backbone)[:2]
        embeddings = [*whole, *views.small_embeddings(backbone, config.small)]
        cosines = [self.prototypes(self.projector.project(each, total)) for each in embeddings]
        assigned = [sinkhorn(each.detach(), config.epsilon, config.iterations, total) for each in cosines[:2]]
        predicted = [torch.log_softmax(each / config.temperature, dim=1) for each in cosines]
        losses = [
            -(target * prediction).sum(dim=1)
            for one, target in enumerate(assigned)
            for other, prediction in enumerate(predicted)
            if other != one
        ]
        return {"loss": global_mean(torch.stack(losses).mean(dim=0), total)}
