"""Self-distillation: DINO (Caron et al., ICCV 2021), and the masked tokens of iBOT (Zhou et al., ICLR 2022)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.backbone.visible import within
from pretrain.objectives.base import Objective, ObjectiveConfig, objective, perceiver
from pretrain.objectives.collectives import all_reduce_sum
from pretrain.objectives.masked import check_hiding
from pretrain.objectives.projector import Projector
from pretrain.objectives.prototypes import Prototypes
from pretrain.objectives.reduction import global_mean
from pretrain.objectives.requests import SmallViews, ViewRequest
from pretrain.objectives.teacher import follow, follower, rate_at
from pretrain.objectives.views import Partial, View, Views
from pretrain.views.config import ViewConfig


class Head(nn.Module):
    """Three linear maps, the hidden ones with batch normalisation, then cosines with prototypes (DINO, appendix C).

    The paper leaves the normalisation away for ViTs (``use_bn_in_head`` of its code). The embeddings of a new Perceiver
    are near each other, and without it a small batch of them stays so.

    Args:
        dim: channels in.
        hidden: width.
        out: channels that are compared with the prototypes.
        prototypes: how many.
    """

    def __init__(self, dim: int, hidden: int, out: int, prototypes: int) -> None:
        super().__init__()
        self.maps = Projector([dim, hidden, hidden, out])
        self.prototypes = Prototypes(out, prototypes)

    def forward(self, x: Tensor, total_rows: int) -> Tensor:
        """``..., prototypes`` of ``..., dim``, in the precision of the weights.

        Args:
            x: own rows, or rows and tokens.
            total_rows: all rows, or rows and tokens, of all ranks together.
        """
        found: Tensor = self.prototypes(self.maps.project(x.flatten(0, -2), total_rows))
        return found.unflatten(0, x.shape[:-1])


@objective("dino")
class DINO(Objective):
    """Tell from any view what a slowly moving average of the network says of a whole view.

    What the average says is sharpened and centred, which keeps it from saying the same of every image. With ``ibot``
    above 0 the whole views are shown to the trained network with patches hidden, and it also tells what the average,
    which sees everything, says of each hidden token.
    """

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            prototypes: how many.
            hidden: width of the head.
            out: channels that are compared with the prototypes.
            temperature: of the trained network's softmax.
            sharpness: temperature of the average's softmax, once it is warm.
            sharpness_start: that at the start.
            warmup: fraction of the run over which it goes from one to the other.
            centre: share of the old centre that a step keeps.
            tau: rate of the moving average at the start; it goes to 1.
            small: further small views, which only the trained network sees.
            ibot: weight of the term of hidden tokens; 0 for none.
            share: of the patches that are hidden for it.
            cells: tokens along each side of such a patch.
        """

        prototypes: Annotated[int, Field(gt=1)] = 1024
        hidden: Annotated[int, Field(gt=0)] = 512
        out: Annotated[int, Field(gt=0)] = 128
        temperature: Annotated[float, Field(gt=0)] = 0.1
        sharpness: Annotated[float, Field(gt=0)] = 0.04
        sharpness_start: Annotated[float, Field(gt=0)] = 0.04
        warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
        centre: Annotated[float, Field(ge=0, lt=1)] = 0.9
        tau: Annotated[float, Field(ge=0, le=1)] = 0.99
        small: SmallViews = SmallViews(count=2)
        ibot: Annotated[float, Field(ge=0)] = 0.0
        share: Annotated[float, Field(gt=0, lt=1)] = 0.3
        cells: Annotated[int, Field(gt=0)] = 2

    config: Config
    centre_K: Tensor
    token_centre_K: Tensor

    @classmethod
    def asks(cls, config: Config) -> ViewRequest:
        """Two whole views, and the small ones."""
        return ViewRequest(small=config.small)

    @classmethod
    def check_data(cls, config: Config, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse images that are a single patch where patches are hidden."""
        if config.ibot:
            check_hiding(shape, config.cells, model)

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        if config.ibot:
            perceiver(backbone, "objectives.dino.ibot")
        self.head = Head(backbone.embed_dim, config.hidden, config.out, config.prototypes)
        self.teacher = follower(backbone)
        self.teacher_head = follower(self.head)
        self.register_buffer("centre_K", torch.zeros(config.prototypes))
        self.register_buffer("token_centre_K", torch.zeros(config.prototypes))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, and with hidden tokens its parts ``image`` and ``token``."""
        config, total = self.config, views.total_rows
        self._seen = []
        whole = views.full[:2]
        with torch.no_grad():
            if config.ibot:
                taught = [views.features(self.teacher, view, dense=True) for view in whole]
                embedded = [each.embedding_BD for each in taught]
            else:
                embedded = list(views.embeddings(self.teacher)[:2])
            said = [self.teacher_head(each, total) for each in embedded]
            targets = [self._target(each, self.centre_K, progress) for each in said]
            self._remember(self.centre_K, torch.stack(said).mean(dim=0).sum(dim=0), total)
        if not config.ibot:
            students = [*views.embeddings(backbone)[:2]]
        else:
            partial = [views.partial(backbone, view, config.share, config.cells) for view in whole]
            students = [each.embedding_BD for each in partial]
        students += views.small_embeddings(backbone, config.small)
        predicted = [self._prediction(each, total) for each in students]
        losses = [
            -(target * prediction).sum(dim=1)
            for one, target in enumerate(targets)
            for other, prediction in enumerate(predicted)
            if other != one
        ]
        loss = global_mean(torch.stack(losses).mean(dim=0), total)
        if not config.ibot:
            return {"loss": loss}
        pairs = zip(whole, partial, taught, strict=True)
        tokens = [self._tokens(view, part, teacher.tokens_BTD, progress, total) for view, part, teacher in pairs]
        token = torch.stack(tokens).mean()
        return {"loss": loss + config.ibot * token, "image": loss.detach(), "token": token.detach()}

    def after_step(self, backbone: Backbone, progress: float) -> None:
        """Move the average and its head, and the centres to what was said in this step."""
        kept = rate_at(self.config.tau, progress)
        follow(self.teacher, backbone, kept)
        follow(self.teacher_head, self.head, kept)
        for centre_K in (self.centre_K, self.token_centre_K):
            found = [mean_K for of, mean_K in self._seen if of is centre_K]
            if found:
                centre_K.lerp_(torch.stack(found).mean(dim=0), 1 - self.config.centre)
        self._seen = []

    def _tokens(
        self, view: View, found: Partial, taught_BTD: Tensor | None, progress: float, total_rows: int
    ) -> Tensor:
        """The loss of the hidden tokens of a view: the mean of each image's."""
        assert taught_BTD is not None
        stride = found.grid.stride
        grid = tuple(-(-length // stride) for length in view.images.shape[2:])
        number_BQ, inside_BQ = within(found.hidden_BQ, found.grid, grid)
        total_tokens = total_rows * number_BQ.shape[1]
        with torch.no_grad():
            chosen_BQD = taught_BTD.gather(1, number_BQ[..., None].expand(-1, -1, taught_BTD.shape[-1]))
            said_BQK = self.teacher_head(chosen_BQD, total_tokens)
            target_BQK = self._target(said_BQK, self.token_centre_K, progress)
            weights_BQ = inside_BQ / inside_BQ.sum(dim=1, keepdim=True).clamp_min(1)
            self._remember(self.token_centre_K, (said_BQK * weights_BQ[..., None]).sum(dim=(0, 1)), total_rows)
        loss_BQ = -(target_BQK * self._prediction(found.answers_BQD, total_tokens)).sum(dim=-1)
        return global_mean((loss_BQ * weights_BQ).sum(dim=1), total_rows)

    def _prediction(self, x: Tensor, total_rows: int) -> Tensor:
        return torch.log_softmax(self.head(x, total_rows) / self.config.temperature, dim=-1)

    def _target(self, said: Tensor, centre_K: Tensor, progress: float) -> Tensor:
        config = self.config
        warm = min(progress / config.warmup, 1.0) if config.warmup else 1.0
        sharpness = config.sharpness_start + (config.sharpness - config.sharpness_start) * warm
        return torch.softmax((said - centre_K) / sharpness, dim=-1)

    def _remember(self, centre_K: Tensor, sum_K: Tensor, total_rows: int) -> None:
        self._seen.append((centre_K, all_reduce_sum(sum_K) / total_rows))
