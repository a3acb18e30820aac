"""Predicting by which right angle an image is turned (RotNet, Gidaris et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Backbone
from pretrain.backbone.position import Spacing
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.precision import full_precision
from pretrain.objectives.reduction import global_mean
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.views import Views
from pretrain.views.config import ViewConfig
from pretrain.views.random import stream, uniforms
from pretrain.views.transforms.flip import Flip
from pretrain.views.transforms.rotation import Rotation as RotationOfViews
from pretrain.views.values import where_chosen


def turned(images: Tensor, turns_B: Tensor) -> Tensor:
    """Each image turned by so many right angles, a volume within its slices, which are as high as wide."""
    for turns in range(1, 4):
        images = where_chosen(images, turns_B == turns, lambda part, by=turns: torch.rot90(part, by, (-2, -1)))
    return images


def turned_spacing(spacing_mm: Spacing, turns_B: Tensor) -> Spacing:
    """Rows and columns change places where an image is turned by an odd number of right angles."""
    if spacing_mm is None or (not isinstance(spacing_mm, Tensor) and spacing_mm[-1] == spacing_mm[-2]):
        return spacing_mm
    if not isinstance(spacing_mm, Tensor):
        lengths = [torch.full((len(turns_B), 1), length, device=turns_B.device) for length in spacing_mm]
        spacing_mm = torch.cat(lengths, dim=1)
    order = [*range(spacing_mm.shape[1] - 2), spacing_mm.shape[1] - 1, spacing_mm.shape[1] - 2]
    odd_B1 = (turns_B % 2 == 1).to(spacing_mm.device)[:, None]
    return torch.where(odd_B1, spacing_mm[:, order], spacing_mm)


def check_rotation(views: ViewConfig) -> None:
    """Refuse augmentation that turns images by as much as what is to be told.

    Raises:
        ConfigError: it does.
    """
    rotation = views.of(RotationOfViews.Config)
    if rotation is not None and rotation.degrees >= 45:
        raise ConfigError(f"views.rotation.degrees {rotation.degrees} hides what is to be told; below 45 is expected")


@objective("rotation")
class Rotation(Objective):
    """Tell by how many right angles the first view was turned; a volume within its slices."""

    config: ObjectiveConfig
    can_collapse = False

    @classmethod
    def asks(cls, config: ObjectiveConfig) -> ViewRequest:
        """One whole view."""
        return ViewRequest(full=1)

    @classmethod
    def check_data(cls, config: ObjectiveConfig, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse images that are not square, and augmentation that turns images by as much itself."""
        if shape[-1] != shape[-2]:
            raise ConfigError(f"images of {shape[-2]} x {shape[-1]} cannot be turned; they must be as high as wide")
        check_rotation(views)
        flip = views.of(Flip.Config)
        if flip is not None and flip.horizontal and flip.vertical:
            raise ConfigError("views are mirrored both ways, which is half a turn; set one of views.flip.* to 0")

    def __init__(self, backbone: Backbone, config: ObjectiveConfig) -> None:
        super().__init__(backbone, config)
        self.classifier = nn.Linear(backbone.embed_dim, 4)

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, and ``accuracy``."""
        view = views.full[0]
        turns_B = (4 * uniforms(stream(view.keys_B, "rotation.turns"), 1)[:, 0]).long()
        shown = replace(view, images=turned(view.images, turns_B), spacing_mm=turned_spacing(view.spacing_mm, turns_B))
        embedding_BD = views.features(backbone, shown).embedding_BD
        with full_precision(embedding_BD):
            logits_BK = self.classifier(embedding_BD.to(self.classifier.weight.dtype))
            loss_B = F.cross_entropy(logits_BK, turns_B, reduction="none")
        right_B = (logits_BK.argmax(dim=1) == turns_B).to(loss_B.dtype)
        total = views.total_rows
        return {"loss": global_mean(loss_B, total), "accuracy": global_mean(right_B.detach(), total)}
