"""Restoring what was taken from an image: noise, resolution, artefacts or colour; decoded through dense queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Backbone
from pretrain.backbone.decoders import RestorationDecoder
from pretrain.objectives.base import Objective, ObjectiveConfig, objective, perceiver
from pretrain.objectives.damage import artefacts, coarse, grey, noisy
from pretrain.objectives.masked import canonical, check_channels
from pretrain.objectives.precision import full_precision
from pretrain.objectives.reduction import global_mean, touched
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.thumbnail import Thumbnail
from pretrain.objectives.views import View, Views
from pretrain.views.config import ViewConfig

Task = Literal["denoise", "super_resolution", "artefacts", "colour"]


@objective("restore")
class Restore(Objective):
    """Give back the image of which only a damaged one is shown.

    Denoising autoencoders (Vincent et al., ICML 2008), super-resolution and inpainting as in Models Genesis (Zhou et
    al., MICCAI 2019), colourisation (Zhang et al., ECCV 2016); the loss is the absolute difference, and the embedding
    learns by telling a thumbnail.
    """

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            task: what is taken away: ``denoise`` (Gaussian noise is added), ``super_resolution`` (the resolution is
                lowered), ``artefacts`` (a bias field, stripes as of a spike in k-space, and a box that is blanked), or
                ``colour``.
            strength: of noise and artefacts: the largest deviation of the noise, bias and stripes, as a fraction of
                the full range. The box takes half of each side at most.
            factor: how many times as long the pixels or voxels are of which resolution is told.
            hidden: channels of the decoder at full resolution.
            thumbnail: weight of the thumbnail that the embedding tells; 0 leaves the embedding untrained.
        """

        task: Task = "denoise"
        strength: Annotated[float, Field(gt=0, le=1)] = 0.3
        factor: Annotated[float, Field(gt=1, le=8)] = 2.0
        hidden: Annotated[int, Field(gt=0)] = 32
        thumbnail: Annotated[float, Field(ge=0)] = 1.0

    config: Config
    can_collapse = False

    @classmethod
    def asks(cls, config: Config) -> ViewRequest:
        """One view with its intensities as they are."""
        return ViewRequest(full=0, clean=True)

    @classmethod
    def check_data(cls, config: Config, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse grey images where colour is asked for, and more channels than are told."""
        if config.task == "colour" and shape[0] != 3:
            raise ConfigError(f"task colour needs images of 3 channels, these have {shape[0]}")
        check_channels(shape, model)

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self.channels = backbone.in_chans
        stride = perceiver(backbone, "objectives.restore").adapter.stem.stride
        self.thumbnail = Thumbnail(backbone)
        self.decoders = nn.ModuleDict(
            {
                str(axes): RestorationDecoder(backbone.embed_dim, self.channels, stride, axes, config.hidden)
                for axes in (2, 3)
            }
        )

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, its parts ``pixels`` and ``thumbnail``, and ``damaged``: ``pixels`` of what was shown."""
        view = views.clean
        assert view is not None
        shown = replace(view, images=self._damaged(view))
        features = views.features(backbone, shown, dense=True)
        axes = view.images.ndim - 2
        truth = canonical(view.images, self.channels)
        assert features.tokens_BTD is not None
        tokens_BTD = features.tokens_BTD.to(truth.dtype)
        decoder = self.decoders[str(axes)]

        def error_of(rows: slice) -> Tensor:
            told = decoder(replace(features, tokens_BTD=tokens_BTD[rows]), shown.images[rows])
            error_B: Tensor = (told - truth[rows]).abs().flatten(1).mean(dim=1)
            return error_B

        with full_precision(truth):
            loss_B = views.by_rows(error_of, truth)
        with torch.no_grad():
            damaged_B = (canonical(shown.images, self.channels) - truth).abs().flatten(1).mean(dim=1)
        unused = [module for name, module in self.decoders.items() if name != str(axes)]
        pixels, damaged = (global_mean(each, views.total_rows) for each in (touched(loss_B, unused), damaged_B))
        thumbnail = global_mean(self.thumbnail(features.embedding_BD, truth, views.total_rows), views.total_rows)
        loss = pixels + self.config.thumbnail * thumbnail
        return {"loss": loss, "pixels": pixels.detach(), "damaged": damaged, "thumbnail": thumbnail.detach()}

    def _damaged(self, view: View) -> Tensor:
        config = self.config
        if config.task == "denoise":
            return noisy(view.images, view.keys_B, 2 * config.strength)  # Images reach from -1 to 1.
        if config.task == "super_resolution":
            return coarse(view.images, config.factor)
        if config.task == "artefacts":
            return artefacts(view.images, view.keys_B, config.strength)
        return grey(view.images)
