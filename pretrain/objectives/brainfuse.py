"""BrainFuse: joint embedding of images fused of several subjects, and consistency with the subjects they are made of.

The source slides name the method and give a table; what it is made of here is our reading. With a generator images are
fused along a binary tree (:mod:`pretrain.brainfuse`); without one they are the mean of the pixels (RawBrainFuse).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from data_shards.support.errors import ConfigError, TrainingError
from data_shards.vocabulary import Task
from pretrain.backbone import Backbone
from pretrain.brainfuse.bundle import generator_rules, load_generator
from pretrain.brainfuse.fusion import check_parents, fused, mean_fused
from pretrain.intensity.trained import TrainedOn
from pretrain.metadata import Metadata
from pretrain.objectives.barlow_twins import barlow_twins_loss
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.collectives import all_gather_rows, all_reduce_sum, world_size
from pretrain.objectives.projector import Projector
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.simclr import nt_xent
from pretrain.objectives.views import Source, View, Views
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.random import stream, streams, uniforms


@objective("brainfuse")
class BrainFuse(Objective):
    """Two views of each fused image are embedded alike, and the fused image where its parents are in the mean.

    ``K`` subjects are fused, the one of the row and others of the global batch; which follows from the key of the row
    and from the numbers of the samples, so it is the same on any number of ranks. The consistency is
    ``|| f(fuse(x_1 .. x_K)) - mean_k f(x_k) ||^2``, without gradient to the mean, by default relative to how far the
    means of the global batch lie apart: the share of their variance that the fused images do not have.
    """

    class Config(ObjectiveConfig):
        """Parameters.

        Attributes:
            generator: folder of the bundle of a generator; None for the mean of the pixels.
            parents: how many subjects are fused, a power of two.
            axis: across which axis of D,H,W the slices of volumes lie that are fused, at one height for all parents;
                None fuses images as they are.
            joint: what embeds two views alike: ``barlow_twins``, ``simclr``, or ``none``.
            consistency: weight of that term; 0 leaves it out.
            distance: ``relative`` divides the squared distance by the variance of the means over the global batch, so
                that it stays when all embeddings are scaled or shifted; ``squared`` divides it by the channels alone,
                and shrinks with embeddings that shrink.
            redundancy: of Barlow Twins.
            temperature: of SimCLR.
            hidden: width of the projector.
            out: channels that are compared.
            views: augmentation of fused images.
        """

        generator: Path | None = None
        parents: Annotated[int, Field(ge=2)] = 2
        axis: Annotated[int, Field(ge=0, le=2)] | None = None
        joint: Literal["barlow_twins", "simclr", "none"] = "barlow_twins"
        consistency: Annotated[float, Field(ge=0)] = 1.0
        distance: Literal["relative", "squared"] = "relative"
        redundancy: Annotated[float, Field(ge=0)] = 0.005
        temperature: Annotated[float, Field(gt=0)] = 0.2
        hidden: Annotated[int, Field(gt=0)] = 512
        out: Annotated[int, Field(gt=0)] = 512
        views: ViewConfig = ViewConfig()

        @field_validator("parents")
        @classmethod
        def _pairs_up(cls, parents: int) -> int:
            if parents & (parents - 1):
                raise ValueError(f"{parents} subjects cannot be paired up to one; expected 2, 4, 8, ...")
            return parents

    config: Config

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        if config.joint == "none" and not config.consistency:
            raise ConfigError("objectives.brainfuse: joint none and consistency 0 leave nothing to learn from")
        self.projector = None
        if config.joint != "none":
            plain = config.joint == "simclr"
            sizes = [backbone.embed_dim, config.hidden, *([] if plain else [config.hidden]), config.out]
            self.projector = Projector(sizes, last_bias=False)
        self.augment = Pipeline(config.views)
        self.generator = None if config.generator is None else load_generator(config.generator).requires_grad_(False)
        if self.generator is not None and self.generator.config.context:
            raise ConfigError(
                f"{config.generator}: a generator that sees {self.generator.config.context} slices on either side; "
                "fusion has none of them"
            )

    @classmethod
    def asks(cls, config: Config) -> ViewRequest:
        """One view, whose keys the draws are derived of; fused images are made of the source."""
        return ViewRequest(full=1)

    @classmethod
    def check_data(cls, config: Any, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse planes where slices of volumes are asked for, and images that the generator does not take.

        Raises:
            ConfigError: what was found and what is expected.
        """
        axes = len(shape) - 1
        if config.axis is not None and axes != 3:
            raise ConfigError(f"objectives.brainfuse: axis {config.axis} is of volumes, and the images are planes")
        fused_shape = (shape[0], *shape[-2:]) if config.axis is not None else shape
        if config.joint != "none":
            config.views.check_data(fused_shape)
            ViewRequest().check_views(config.views, fused_shape)
        if config.generator is None:
            return
        known = load_generator(config.generator).config
        shown = 2 if config.axis is not None else axes
        if (known.axes, known.channels) != (shown, shape[0]):
            raise ConfigError(
                f"objectives.brainfuse: the generator takes images of {known.axes} axes and {known.channels} channels, "
                f"those that are fused have {shown} axes and {shape[0]} channels"
            )

    @classmethod
    def uses(cls, config: Any) -> dict[str, tuple[TrainedOn, ...]]:
        """The generator."""
        return {} if config.generator is None else {"generator": generator_rules(config.generator)}

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss`` and its parts ``joint`` and ``consistency``.

        Raises:
            TrainingError: the global batch has fewer subjects than are to be fused.
        """
        source, rows, total = views.source, views.rows, views.total_rows
        assert source is not None
        keys_B = views.full[0].keys_B
        dtype = views.full[0].images.dtype
        parents_KBC = self._parents(source, keys_B, rows).to(dtype)
        with torch.no_grad():
            one = views.by_rows(lambda some: self._fused(parents_KBC[:, some]), parents_KBC[0])
        metadata = Metadata(
            source.metadata.organ_B,
            source.metadata.modality_B,
            torch.full_like(source.metadata.organ_B, int(Task.self_supervised)),
        )
        parts: dict[str, Tensor] = {}
        if self.projector is not None:
            pixels = one.clamp(-1, 1).to(torch.float32)
            embedded = []
            for number in range(2):
                own = stream(keys_B, f"brainfuse.view {number}")
                view = View(self.augment(pixels, own, None, number).to(dtype), metadata, None, own)
                embedded.append(views.features(backbone, view).embedding_BD)
            za, zb = (self.projector.project(each, total) for each in embedded)
            if self.config.joint == "simclr":
                parts["joint"] = nt_xent(za, zb, self.config.temperature, rows)
            else:
                parts["joint"] = sum(barlow_twins_loss(za, zb, self.config.redundancy, total), za.new_zeros(()))
        if self.config.consistency:
            child, *parents = (View(images, metadata, None, keys_B) for images in (one, *parents_KBC))
            made_BD = views.features(backbone, child).embedding_BD
            with torch.no_grad():
                mean_BD = torch.stack([views.features(backbone, each).embedding_BD for each in parents]).mean(0)
            distance = _share_unexplained if self.config.distance == "relative" else _squared_distance
            parts["consistency"] = self.config.consistency * distance(made_BD, mean_BD, total)
        loss = torch.stack(list(parts.values())).sum()
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _fused(self, parents_KBC: Tensor) -> Tensor:
        return mean_fused(parents_KBC) if self.generator is None else fused(self.generator.eval(), parents_KBC)

    def _parents(self, source: Source, keys_B: Tensor, rows: tuple[int, ...]) -> Tensor:
        """The images that are fused to each row, the row's own first, ``K,B,C,*size``."""
        everyone = all_gather_rows(source.images, rows)
        own_B = source.sample_B.to(everyone.device)
        sample_G = all_gather_rows(own_B, rows)
        subject_B = source.sample_B if source.subject_B is None else source.subject_B
        subject_G = all_gather_rows(subject_B.to(everyone.device), rows)
        try:  # The one number of a step that is waited for: without it an error could not be told.
            if not subject_G.is_meta:  # of shapes alone nothing is known
                check_parents(self.config.parents, len(subject_G.unique()))
        except ConfigError as error:
            raise TrainingError(f"{error} in a batch") from None
        chosen_KB = chosen_parents(keys_B, own_B, sample_G, subject_G, self.config.parents)
        parents = everyone[chosen_KB]
        if self.config.axis is None:
            return parents
        axis = 3 + self.config.axis
        height_B = (uniforms(stream(keys_B, "brainfuse.height"), 1)[:, 0] * parents.shape[axis]).long()
        place = height_B.view(1, -1, *[1] * (parents.ndim - 2))
        return parents.take_along_dim(place, dim=axis).squeeze(axis)


def _squared_distance(made_BD: Tensor, mean_BD: Tensor, total: int) -> Tensor:
    """Mean over the rows of the global batch and the channels."""
    return (made_BD - mean_BD).square().mean(dim=1).sum() * (world_size() / total)


def _share_unexplained(made_BD: Tensor, mean_BD: Tensor, total: int) -> Tensor:
    """Squared distances over those of the means from their centre, both summed over the global batch.

    The centre is taken first: a difference of moments would lose what embeddings far from zero differ by.
    """
    with torch.no_grad():
        centre_D = all_reduce_sum(mean_BD.sum(dim=0)) / total
        spread = all_reduce_sum((mean_BD - centre_D).square().sum())
    tiny = torch.finfo(made_BD.dtype).tiny
    return (made_BD - mean_BD).square().sum() * (world_size() / spread.clamp_min(tiny))


def chosen_parents(keys_B: Tensor, own_B: Tensor, sample_G: Tensor, subject_G: Tensor, count: int) -> Tensor:
    """Places in the global batch of each row and of the others that are fused to it, all of different subjects.

    They are drawn by the numbers of key and sample, whatever the order of the batch.

    Args:
        keys_B: of the rows.
        own_B: numbers of their samples.
        sample_G: those of the global batch.
        subject_G: whose they are; ``count`` subjects at least.
        count: how many are fused.

    Returns:
        ``count, B``, the row itself first.
    """
    mine_B = (sample_G == own_B[:, None]).to(torch.int8).argmax(dim=1)
    u_BG = uniforms(streams(stream(keys_B, "brainfuse.parents"), sample_G), 1)[..., 0]
    order_BG = u_BG.argsort(dim=1, stable=True)
    theirs_BG = subject_G[order_BG]
    # Of each subject the first in the order: sorted by subject, where another one begins.
    sorted_BG, place_BG = theirs_BG.sort(dim=1, stable=True)
    begins_BG = torch.ones_like(sorted_BG, dtype=torch.bool)
    begins_BG[:, 1:] = sorted_BG[:, 1:] != sorted_BG[:, :-1]
    first_BG = torch.zeros_like(begins_BG).scatter(1, place_BG, begins_BG)
    fitting_BG = first_BG & (theirs_BG != subject_G[mine_B][:, None])
    ranked_BG = torch.where(fitting_BG, torch.arange(len(subject_G), device=keys_B.device), len(subject_G))
    others_BK = order_BG.gather(1, ranked_BG.sort(dim=1).values[:, : count - 1])
    return torch.cat([mine_B[:, None], others_BK], dim=1).T
