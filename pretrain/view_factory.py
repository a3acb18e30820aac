"""From a batch of the stream to the views the objectives train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.intensity import BYTES, Rule
from data_shards.stream.batch import Batch
from data_shards.vocabulary import Task
from pretrain.backbone import normalise
from pretrain.backbone.position import Spacing
from pretrain.config import PretrainConfig
from pretrain.intensity import in_range
from pretrain.metadata import Metadata
from pretrain.objectives import Views
from pretrain.objectives.base import requested
from pretrain.objectives.requests import SmallViews, ViewPlan, kind_of
from pretrain.objectives.views import Source, View
from pretrain.spacing import as_spacing, on_device
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.random import sample_keys, stream, uniforms
from pretrain.views.transforms.crop import Crop

_FULL = 2
"""Numbers of views of the whole size: the small ones are counted from here on, however many of these are drawn."""
_METADATA = "metadata"
"""The stream that metadata dropout draws from."""
SUBJECT = "subject"
"""The attribute of the studies that says which subject an image is of, by its number."""


class ViewFactory:
    """Makes the views that the objectives ask for; their randomness is a function of (seed, epoch, sample, view) alone.

    Args:
        config: seed, augmentation, objectives and metadata dropout are taken from it.
        device: where views are computed.
        views: augmentation of every dataset; that of the document when left out.
        rules: how the values of every dataset become the range that views act on; 8 bits when left out.
    """

    def __init__(
        self,
        config: PretrainConfig,
        device: torch.device,
        views: Sequence[ViewConfig] | None = None,
        rules: Sequence[Rule] | None = None,
    ) -> None:
        views = [dataset.views or config.views for dataset in config.data.datasets] if views is None else views
        self._seed = config.seed
        self._plan = ViewPlan.of(requested(name, each) for name, each in config.objectives.items())
        self._pipelines = [_Pipelines.of(each, self._plan) for each in views]
        self._rules: Sequence[Rule] = [BYTES for _ in views] if rules is None else rules
        self._dropout = config.model.metadata_dropout
        self._device = device
        self._micro_batch = config.data.micro_batch_size

    def __call__(self, batch: Batch) -> Views:
        """The views of own rows of a global batch, with their spacing where that of the images is known."""
        of, plan = self._pipelines[batch.dataset], self._plan
        given = _Given.of(batch, self._device, self._rules[batch.dataset])
        full = [self._view(given, of.full, number, number) for number in range(plan.full)]
        small: dict[SmallViews, tuple[View, ...]] = {}
        number = _FULL
        for each, pipeline in zip(plan.small, of.small, strict=True):
            small[kind_of(each)] = tuple(
                self._view(given, pipeline, number + turn, turn % _FULL) for turn in range(each.count)
            )
            number += each.count
        return Views(
            tuple(view.images for view in full),
            tuple(view.metadata for view in full),
            batch.rows,
            tuple(view.spacing_mm for view in full),
            keys=tuple(view.keys_B for view in full),
            small=small,
            clean=self._view(given, of.clean, 0, 0) if plan.clean else None,
            source=self._source(given),
            micro_batch=self._micro_batch,
        )

    def _view(self, given: _Given, pipeline: Pipeline, number: int, like: int) -> View:
        """View ``number``, coarser and cut as the full view ``like``."""
        batch = given.batch
        keys_B = sample_keys(self._seed, batch.dataset_epoch, batch.dataset, given.sample_B, number)
        pixels = pipeline(given.images, keys_B, given.spacing_mm_BA, like)
        metadata = self._drop(given.metadata, uniforms(stream(keys_B, _METADATA), 3))
        return View(pixels, metadata, self._spacing(batch, pixels), keys_B)

    def _spacing(self, batch: Batch, view: Tensor) -> Spacing:
        if batch.spacing_mm_BA is None:
            return None
        axes = view.ndim - 2  # the last ones: a slice has no depth
        sizes = zip(batch.images.shape[-axes:], view.shape[-axes:], strict=True)
        coarser_A = torch.tensor([before / after for before, after in sizes], dtype=torch.float64)
        spacing_mm_BA = (batch.spacing_mm_BA[:, -axes:] * coarser_A).to(batch.spacing_mm_BA.dtype)
        return on_device(as_spacing(spacing_mm_BA), self._device)

    def _drop(self, metadata: Metadata, u_B3: Tensor) -> Metadata:
        kept_B3 = u_B3 >= self._dropout
        task_B = torch.full_like(metadata.organ_B, int(Task.self_supervised))
        return Metadata(metadata.organ_B * kept_B3[:, 0], metadata.modality_B * kept_B3[:, 1], task_B * kept_B3[:, 2])

    def _source(self, given: _Given) -> Source:
        batch = given.batch
        normalised = normalise(given.images) if given.images.dtype == torch.uint8 else given.images
        subject_B = batch.attributes.get(SUBJECT)
        return Source(
            normalised,
            batch.sample_B,
            batch.dataset,
            None if subject_B is None else subject_B.nan_to_num(-1).long(),
            given.metadata,
            self._spacing(batch, normalised),
        )


@dataclass(frozen=True)
class _Given:
    """What views of a batch are made of, on the device where they are made; of the host a few numbers per image.

    Images of 8 bits stay so until a view is made of them, others are in the range of the network.
    """

    batch: Batch
    images: Tensor
    sample_B: Tensor
    metadata: Metadata
    spacing_mm_BA: Tensor | None

    @classmethod
    def of(cls, batch: Batch, device: torch.device, rule: Rule) -> _Given:
        spacing_mm_BA = batch.spacing_mm_BA
        images = batch.images.to(device, non_blocking=True)
        return cls(
            batch,
            images if rule == BYTES else in_range(images, rule),
            batch.sample_B.to(device, non_blocking=True),
            Metadata(batch.organ_B, batch.modality_B, batch.task_B).to(device),
            None if spacing_mm_BA is None else spacing_mm_BA.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class _Pipelines:
    """What makes the views of a dataset: the full ones, each kind of small ones, and the clean one."""

    full: Pipeline
    small: tuple[Pipeline, ...]
    clean: Pipeline

    @classmethod
    def of(cls, config: ViewConfig, plan: ViewPlan) -> _Pipelines:
        small = tuple(Pipeline(_smaller(config, each)) for each in plan.small)
        return cls(Pipeline(config), small, Pipeline(config.moved_only()))


def _smaller(config: ViewConfig, small: SmallViews) -> ViewConfig:
    """Crops of a small part, which are then made coarser."""
    crop = config.of(Crop.Config) or Crop.Config(aspect=1.0)
    factors = tuple(factor / small.size for factor in config.coarser)
    return config.changed(crop=crop.model_copy(update={"scale": small.scale}), coarser=factors)
