"""Masked reconstruction: pixels of patches that the network never saw (MAE, He et al., CVPR 2022).

Our reading of it for a Perceiver: hidden patches are left out before the stem, so that a step costs less, and the
latents are asked for them by dense queries that know the place alone. The embedding learns by telling a thumbnail.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Backbone
from pretrain.backbone.visible import cut, patch_grid, within
from pretrain.objectives.base import Objective, ObjectiveConfig, objective, perceiver
from pretrain.objectives.precision import full_precision
from pretrain.objectives.reduction import global_mean, touched
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.thumbnail import Thumbnail
from pretrain.objectives.views import Views
from pretrain.views.config import ViewConfig

_EPS = 1e-6  # That of the reference implementation, under the root of the variance of a patch.


def check_hiding(shape: tuple[int, ...], cells: int, model: Backbone) -> None:
    """Refuse images that cannot be cut into patches of ``cells`` tokens a side.

    Raises:
        ConfigError: they are a single patch, or the network reads at a spacing of its own.
    """
    if model.voxel_mm is not None:
        raise ConfigError("patches are hidden of images as they are; model.kwargs.voxel_mm is not supported with that")
    side = cells * perceiver(model, "hidden patches").adapter.stem.stride
    if not any(count > 1 for count in patch_grid(shape[1:], side)):
        raise ConfigError(f"images of {shape[1:]} are a single patch of {side}; at least two are needed, lower cells")


def check_channels(shape: tuple[int, ...], model: Backbone) -> None:
    """Refuse images of more channels than the network restores.

    Raises:
        ConfigError: they have more than the canonical number.
    """
    if shape[0] > model.in_chans:
        raise ConfigError(f"images of {shape[0]} channels, of {model.in_chans} at most can be told; set in_chans")


def canonical(images: Tensor, channels: int) -> Tensor:
    """Images whose channels are repeated cyclically to the canonical number, as the stem reads them."""
    return images[:, torch.arange(channels, device=images.device) % images.shape[1]]


@objective("masked")
class Masked(Objective):
    """Tell the pixels of hidden patches from those that are seen."""

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            share: of the patches that are hidden.
            cells: tokens along each side of a patch.
            normalise: whether each token's pixels are told relative to their own mean and deviation.
            thumbnail: weight of the thumbnail that the embedding tells; 0 leaves the embedding untrained.
        """

        share: Annotated[float, Field(gt=0, lt=1)] = 0.75
        cells: Annotated[int, Field(gt=0)] = 2
        normalise: bool = True
        thumbnail: Annotated[float, Field(ge=0)] = 1.0

    config: Config
    can_collapse = False

    @classmethod
    def asks(cls, config: Config) -> ViewRequest:
        """One view with its intensities as they are."""
        return ViewRequest(full=0, clean=True)

    @classmethod
    def check_data(cls, config: Config, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse images that are a single patch, or have more channels than are told."""
        check_hiding(shape, config.cells, model)
        check_channels(shape, model)

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.stride = perceiver(backbone, "objectives.masked").adapter.stem.stride
        self.channels = backbone.in_chans
        self.thumbnail = Thumbnail(backbone)
        self.pixels = nn.ModuleDict(
            {str(axes): nn.Linear(backbone.embed_dim, self.channels * self.stride**axes) for axes in (2, 3)}
        )

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, and its parts: the mean squared errors of the pixels of hidden tokens and of the thumbnail."""
        view = views.clean
        assert view is not None
        found = views.partial(backbone, view, self.config.share, self.config.cells)
        axes = view.images.ndim - 2
        size = tuple(view.images.shape[2:])
        number_BQ, inside_BQ = within(found.hidden_BQ, found.grid, patch_grid(size, self.stride))
        images = canonical(view.images, self.channels)
        truth_BTP = cut(images, self.stride).flatten(2)
        truth_BQP = truth_BTP.gather(1, number_BQ[..., None].expand(-1, -1, truth_BTP.shape[-1]))
        if self.config.normalise:
            variance, mean = torch.var_mean(truth_BQP, dim=-1, keepdim=True)
            truth_BQP = (truth_BQP - mean) / (variance + _EPS).sqrt()
        head = self.pixels[str(axes)]
        with full_precision(truth_BQP):
            told_BQP = head(found.answers_BQD.to(truth_BQP.dtype))
            error_BQ = (told_BQP - truth_BQP).square().mean(dim=-1) * inside_BQ
        unused = [module for name, module in self.pixels.items() if name != str(axes)]
        pixels_B = touched(error_BQ.sum(dim=1) / inside_BQ.sum(dim=1).clamp_min(1), unused)
        pixels = global_mean(pixels_B, views.total_rows)
        thumbnail = global_mean(self.thumbnail(found.embedding_BD, images, views.total_rows), views.total_rows)
        loss = pixels + self.config.thumbnail * thumbnail
        return {"loss": loss, "pixels": pixels.detach(), "thumbnail": thumbnail.detach()}
