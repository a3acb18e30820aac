"""BrainFuse: joint embedding of images fused of several subjects, and consistency with the subjects they are made of.

The source slides name the method and give a table; what it is made of here is our reading. With a generator images are
fused along a binary tree (:mod:`pretrain.brainfuse`); without one they are the mean of the pixels (RawBrainFuse).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from data_shards.support.errors import ConfigError, TrainingError
from data_shards.vocabulary import Task
from pretrain.backbone import Medformer
from pretrain.brainfuse.bundle import load_generator
from pretrain.brainfuse.fusion import check_parents, fused, mean_fused
from pretrain.metadata import Metadata
from pretrain.objectives.barlow_twins import barlow_twins_loss
from pretrain.objectives.base import Objective, ObjectiveConfig, objective
from pretrain.objectives.collectives import all_gather_rows, world_size
from pretrain.objectives.draws import derived_keys, uniforms_of
from pretrain.objectives.projector import Projector
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.simclr import nt_xent
from pretrain.objectives.views import Source, View, Views
from pretrain.views import augment
from pretrain.views.config import ViewConfig

_HEIGHT, _PARENTS, _FIRST_VIEW = 11, 12, 13
"""Purposes for which keys are derived, see :func:`~pretrain.objectives.draws.derived_keys`."""


@objective("brainfuse")
class BrainFuse(Objective):
    """Two views of each fused image are embedded alike, and the fused image where its parents are in the mean.

    ``K`` subjects are fused, the one of the row and others of the global batch; which follows from the key of the row
    and from the numbers of the samples, so it is the same on any number of ranks. The consistency is
    ``|| f(fuse(x_1 .. x_K)) - mean_k f(x_k) ||^2 / D``, without gradient to the mean.
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

    def __init__(self, backbone: Medformer, config: Config) -> None:
        super().__init__(backbone, config)
        if config.joint == "none" and not config.consistency:
            raise ConfigError("objectives.brainfuse: joint none and consistency 0 leave nothing to learn from")
        self.projector = None
        if config.joint != "none":
            plain = config.joint == "simclr"
            sizes = [backbone.embed_dim, config.hidden, *([] if plain else [config.hidden]), config.out]
            self.projector = Projector(sizes, last_bias=False)
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
    def check_data(cls, config: Any, shape: tuple[int, ...], views: ViewConfig, model: Medformer) -> None:
        """Refuse planes where slices of volumes are asked for, and images that the generator does not take.

        Raises:
            ConfigError: what was found and what is expected.
        """
        axes = len(shape) - 1
        if config.axis is not None and axes != 3:
            raise ConfigError(f"objectives.brainfuse: axis {config.axis} is of volumes, and the images are planes")
        if config.generator is None:
            return
        known = load_generator(config.generator).config
        shown = 2 if config.axis is not None else axes
        if (known.axes, known.channels) != (shown, shape[0]):
            raise ConfigError(
                f"objectives.brainfuse: the generator takes images of {known.axes} axes and {known.channels} channels, "
                f"those that are fused have {shown} axes and {shape[0]} channels"
            )

    def forward(self, backbone: Medformer, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
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
            pixels = ((one.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            embedded = []
            for number in range(2):
                own = derived_keys(keys_B, _FIRST_VIEW + number)
                view = View(augment(pixels, own, self.config.views, None, number).to(dtype), metadata, None, own)
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
            squared = (made_BD - mean_BD).square().mean(dim=1).sum() * (world_size() / total)
            parts["consistency"] = self.config.consistency * squared
        loss = torch.stack(list(parts.values())).sum()
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _fused(self, parents_KBC: Tensor) -> Tensor:
        return mean_fused(parents_KBC) if self.generator is None else fused(self.generator.eval(), parents_KBC)

    def _parents(self, source: Source, keys_B: np.ndarray, rows: tuple[int, ...]) -> Tensor:
        """The images that are fused to each row, the row's own first, ``K,B,C,*size``."""
        everyone = all_gather_rows(source.images, rows)
        sample_G = all_gather_rows(source.sample_B.to(everyone.device), rows).cpu().numpy()
        subject_B = source.sample_B if source.subject_B is None else source.subject_B
        subject_G = all_gather_rows(subject_B.to(everyone.device), rows).cpu().numpy()
        check = len(np.unique(subject_G))
        try:
            check_parents(self.config.parents, check)
        except ConfigError as error:
            raise TrainingError(f"{error} in a batch") from None
        own = source.sample_B.cpu().numpy()
        chosen = np.stack(
            [
                _chosen(key, int(sample), sample_G, subject_G, self.config.parents)
                for key, sample in zip(keys_B, own, strict=True)
            ],
            axis=1,
        )
        parents = everyone[torch.from_numpy(chosen).to(everyone.device)]
        if self.config.axis is None:
            return parents
        axis = 3 + self.config.axis
        length = parents.shape[axis]
        height_B = (uniforms_of(derived_keys(keys_B, _HEIGHT), 1)[:, 0] * length).astype(int)
        each = [parents[:, row].select(axis - 1, int(height)) for row, height in enumerate(height_B)]
        return torch.stack(each, dim=1)


def _chosen(key: np.uint64, own: int, sample_G: np.ndarray, subject_G: np.ndarray, count: int) -> np.ndarray:
    """Places in the global batch of a row and of the others that are fused to it, all of different subjects."""
    mine = int(np.flatnonzero(sample_G == own)[0])
    # By the numbers of key and sample, whatever the order of the batch.
    with np.errstate(over="ignore"):
        keys_G = derived_keys(sample_G.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key, _PARENTS)
    order = np.lexsort((sample_G, uniforms_of(keys_G, 1)[:, 0]))
    found, seen = [mine], {int(subject_G[mine])}
    for place in order.tolist():
        if len(found) == count:
            break
        if int(subject_G[place]) not in seen:
            found.append(place)
            seen.add(int(subject_G[place]))
    return np.array(found)
