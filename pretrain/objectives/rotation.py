"""Predicting by which right angle an image is turned (RotNet, Gidaris et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Medformer
from pretrain.backbone.position import Spacing
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.draws import derived_keys, uniforms_of
from pretrain.objectives.precision import full_precision
from pretrain.objectives.reduction import global_mean
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.views import Views
from pretrain.views.config import ViewConfig

_TURNS = 6
"""The purpose for which keys are derived."""


def turned(images: Tensor, turns_B: np.ndarray) -> Tensor:
    """Each image turned by so many right angles, a volume within its slices, which are as high as wide."""
    found = torch.empty_like(images)
    for turns in range(4):
        rows = torch.from_numpy(np.flatnonzero(turns_B == turns)).to(images.device)
        found = found.index_copy(0, rows, torch.rot90(images[rows], turns, (-2, -1)))
    return found


def turned_spacing(spacing_mm: Spacing, turns_B: np.ndarray) -> Spacing:
    """Rows and columns change places where an image is turned by an odd number of right angles."""
    if spacing_mm is None or (not isinstance(spacing_mm, Tensor) and spacing_mm[-1] == spacing_mm[-2]):
        return spacing_mm
    if not isinstance(spacing_mm, Tensor):
        spacing_mm = torch.tensor([list(spacing_mm)] * len(turns_B))
    order = [*range(spacing_mm.shape[1] - 2), spacing_mm.shape[1] - 1, spacing_mm.shape[1] - 2]
    odd_B1 = torch.from_numpy(turns_B % 2 == 1).to(spacing_mm.device)[:, None]
    return torch.where(odd_B1, spacing_mm[:, order], spacing_mm)


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
    def check_data(cls, config: ObjectiveConfig, shape: tuple[int, ...], views: ViewConfig, model: Medformer) -> None:
        """Refuse images that are not square, and augmentation that turns images by as much itself."""
        if shape[-1] != shape[-2]:
            raise ConfigError(f"images of {shape[-2]} x {shape[-1]} cannot be turned; they must be as high as wide")
        if views.rotation_deg >= 45:
            raise ConfigError(f"views.rotation_deg {views.rotation_deg} hides what is to be told; below 45 is expected")
        if views.flip_horizontal and views.flip_vertical:
            raise ConfigError("views are mirrored both ways, which is half a turn; set one of views.flip_* to 0")

    def __init__(self, backbone: Medformer, config: ObjectiveConfig) -> None:
        super().__init__(backbone, config)
        self.classifier = nn.Linear(backbone.embed_dim, 4)

    def forward(self, backbone: Medformer, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, and ``accuracy``."""
        view = views.full[0]
        turns_B = np.floor(4 * uniforms_of(derived_keys(view.keys_B, _TURNS), 1)[:, 0]).astype(np.int64)
        shown = replace(view, images=turned(view.images, turns_B), spacing_mm=turned_spacing(view.spacing_mm, turns_B))
        embedding_BD = views.features(backbone, shown).embedding_BD
        truth_B = torch.from_numpy(turns_B).to(embedding_BD.device)
        with full_precision(embedding_BD):
            logits_BK = self.classifier(embedding_BD.to(self.classifier.weight.dtype))
            loss_B = F.cross_entropy(logits_BK, truth_B, reduction="none")
        right_B = (logits_BK.argmax(dim=1) == truth_B).to(loss_B.dtype)
        total = views.total_rows
        return {"loss": global_mean(loss_B, total), "accuracy": global_mean(right_B.detach(), total)}
