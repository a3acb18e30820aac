"""Predicting where the shuffled tiles of an image belong (Noroozi and Favaro, ECCV 2016).

Our reading of it: the embedding tells the place of each tile, instead of which of a list of permutations it was; so it
needs no list, and goes for volumes too.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Backbone
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.precision import full_precision
from pretrain.objectives.reduction import global_mean, touched
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.rotation import check_rotation
from pretrain.objectives.views import Views
from pretrain.views.config import ViewConfig
from pretrain.views.random import stream, uniforms


def shuffled(images: Tensor, order_BT: Tensor, u_BTA: Tensor, tiles: int, gap: float) -> Tensor:
    """Images put together from tiles of others' places.

    Args:
        images: ``B,C,H,W`` or ``B,C,D,H,W``.
        order_BT: which tile, in row-major order, stands at each place.
        u_BTA: uniform numbers: where in its tile the part that is shown lies.
        tiles: along each axis.
        gap: share of the side of a tile that is left away, so that edges do not fit together.
    """
    axes = images.ndim - 2
    home = torch.stack(torch.unravel_index(order_BT, (tiles,) * axes), dim=-1)
    index: list[Tensor] = []
    inner: list[int] = []
    for axis, length in enumerate(images.shape[2:]):
        side = length // tiles
        inner.append(max(side - math.ceil(side * gap), 1))
        start_BT = home[..., axis] * side + (u_BTA[..., axis] * (side - inner[-1] + 1)).long()
        at = start_BT[..., None] + torch.arange(inner[-1], device=images.device)
        index.append(at.view(*at.shape[:2], *[1] * axis, -1, *[1] * (axes - axis - 1)))
    rows = torch.arange(len(images), device=images.device).view(-1, *[1] * (axes + 1))
    parts = images.movedim(1, -1)[(rows, *index)]  # B, T, inner..., C
    parts = parts.unflatten(1, (tiles,) * axes)
    turns = [place for axis in range(axes) for place in (1 + axis, 1 + axes + axis)]
    size = [tiles * length for length in inner]
    return parts.permute(0, 1 + 2 * axes, *turns).reshape(len(images), images.shape[1], *size)


@objective("jigsaw")
class Jigsaw(Objective):
    """Tell of each tile of a shuffled view from which place it is."""

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            tiles: along each axis.
            gap: share of the side of a tile that is left away, at a place of its own for each.
        """

        tiles: Annotated[int, Field(ge=2, le=4)] = 2
        gap: Annotated[float, Field(ge=0, lt=1)] = 0.15

    config: Config
    can_collapse = False

    @classmethod
    def asks(cls, config: Config) -> ViewRequest:
        """One whole view."""
        return ViewRequest(full=1)

    @classmethod
    def check_data(cls, config: Config, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse images with an axis that is too short to be cut."""
        if views.slices[0]:
            shape = (shape[0], *shape[-2:])
        if min(shape[1:]) < 2 * config.tiles:
            raise ConfigError(f"images of {shape[1:]} cannot be cut into {config.tiles} tiles along every axis")
        check_rotation(views)

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.places = nn.ModuleDict(
            {str(axes): nn.Linear(backbone.embed_dim, config.tiles ** (2 * axes)) for axes in (2, 3)}
        )

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``: the mean cross entropy over the tiles; and ``accuracy``, of tiles."""
        view, tiles = views.full[0], self.config.tiles
        axes = view.images.ndim - 2
        count = tiles**axes
        order_BT = uniforms(stream(view.keys_B, "jigsaw.order"), count).argsort(dim=1, stable=True)
        u_BTA = uniforms(stream(view.keys_B, "jigsaw.offsets"), count * axes).view(-1, count, axes)
        shown = replace(view, images=shuffled(view.images, order_BT, u_BTA, tiles, self.config.gap))
        embedding_BD = views.features(backbone, shown).embedding_BD
        head = self.places[str(axes)]
        with full_precision(embedding_BD):
            logits_BTK = head(embedding_BD.to(next(head.parameters()).dtype)).unflatten(1, (count, count))
            loss_B = F.cross_entropy(logits_BTK.transpose(1, 2), order_BT, reduction="none").mean(dim=1)
        right_B = (logits_BTK.argmax(dim=-1) == order_BT).to(loss_B.dtype).mean(dim=1)
        unused = [module for name, module in self.places.items() if name != str(axes)]
        loss = touched(global_mean(loss_B, views.total_rows), unused)
        return {"loss": loss, "accuracy": global_mean(right_B, views.total_rows)}
