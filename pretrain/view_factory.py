"""From a batch of the stream to the views the objectives train on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_shards.stream.batch import Batch
from data_shards.vocabulary import Task
from pretrain.backbone import normalise
from pretrain.backbone.position import Spacing
from pretrain.config import PretrainConfig
from pretrain.metadata import Metadata
from pretrain.objectives import Views
from pretrain.objectives.base import requested
from pretrain.objectives.requests import SmallViews, ViewPlan, kind_of
from pretrain.objectives.views import Source, View
from pretrain.spacing import as_spacing, on_device
from pretrain.views import augment
from pretrain.views.config import ViewConfig
from pretrain.views.counter_rng import sample_keys, uniforms

_FULL = 2
"""Numbers of views of the whole size: the small ones are counted from here on, however many of these are drawn."""
_METADATA_PURPOSE = 1 << 20
"""Added to the view number where keys are drawn for metadata dropout, so that no pixel shares its numbers."""
SUBJECT = "subject"
"""The attribute of the studies that says which subject an image is of, by its number."""


class ViewFactory:
    """Makes the views that the objectives ask for; their randomness is a function of (seed, epoch, sample, view) alone.

    Args:
        config: seed, augmentation, objectives and metadata dropout are taken from it.
        device: where views are computed.
    """

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self._seed = config.seed
        self._views = [dataset.views or config.views for dataset in config.data.datasets]
        self._dropout = config.model.metadata_dropout
        self._device = device
        self._micro_batch = config.data.micro_batch_size
        self._plan = ViewPlan.of(requested(name, each) for name, each in config.objectives.items())

    def __call__(self, batch: Batch) -> Views:
        """The views of own rows of a global batch, with their spacing where that of the images is known."""
        images = batch.images.to(self._device, non_blocking=True)
        config, plan = self._views[batch.dataset], self._plan
        full = [self._view(batch, images, config, number, number) for number in range(plan.full)]
        small: dict[SmallViews, tuple[View, ...]] = {}
        number = _FULL
        for each in plan.small:
            changed = _smaller(config, each)
            small[kind_of(each)] = tuple(
                self._view(batch, images, changed, number + turn, turn % _FULL) for turn in range(each.count)
            )
            number += each.count
        return Views(
            tuple(view.images for view in full),
            tuple(view.metadata for view in full),
            batch.rows,
            tuple(view.spacing_mm for view in full),
            keys=tuple(view.keys_B for view in full),
            small=small,
            clean=self._view(batch, images, _clean(config), 0, 0) if plan.clean else None,
            source=self._source(batch, images),
            micro_batch=self._micro_batch,
        )

    def _view(self, batch: Batch, images: Tensor, config: ViewConfig, number: int, like: int) -> View:
        """View ``number``, coarser and cut as the full view ``like``."""
        samples_B = batch.sample_B.numpy()
        keys_B = sample_keys(self._seed, batch.dataset_epoch, batch.dataset, samples_B, number)
        pixels = augment(images, keys_B, config, batch.spacing_mm_BA, like)
        of_metadata_B = sample_keys(
            self._seed, batch.dataset_epoch, batch.dataset, samples_B, number + _METADATA_PURPOSE
        )
        metadata = self._drop(batch, uniforms(of_metadata_B, 3)).to(self._device)
        return View(pixels, metadata, self._spacing(batch, pixels), keys_B)

    def _spacing(self, batch: Batch, view: Tensor) -> Spacing:
        if batch.spacing_mm_BA is None:
            return None
        axes = view.ndim - 2  # the last ones: a slice has no depth
        sizes = zip(batch.images.shape[-axes:], view.shape[-axes:], strict=True)
        coarser_A = torch.tensor([before / after for before, after in sizes], dtype=torch.float64)
        spacing_mm_BA = (batch.spacing_mm_BA[:, -axes:] * coarser_A).to(batch.spacing_mm_BA.dtype)
        return on_device(as_spacing(spacing_mm_BA), self._device)

    def _drop(self, batch: Batch, u_B3: np.ndarray) -> Metadata:
        kept_B3 = torch.from_numpy(u_B3 >= self._dropout)
        task_B = torch.full_like(batch.organ_B, int(Task.self_supervised))
        return Metadata(batch.organ_B * kept_B3[:, 0], batch.modality_B * kept_B3[:, 1], task_B * kept_B3[:, 2])

    def _source(self, batch: Batch, images: Tensor) -> Source:
        normalised = normalise(images)
        subject_B = batch.attributes.get(SUBJECT)
        return Source(
            normalised,
            batch.sample_B,
            batch.dataset,
            None if subject_B is None else subject_B.nan_to_num(-1).long(),
            Metadata(batch.organ_B, batch.modality_B, batch.task_B).to(self._device),
            self._spacing(batch, normalised),
        )


def _smaller(config: ViewConfig, small: SmallViews) -> ViewConfig:
    """Crops of a small part, which are then made coarser."""
    factors = tuple(factor / small.size for factor in config.coarser)
    scale = {"crop_scale_min": small.scale[0], "crop_scale_max": small.scale[1]}
    return config.model_copy(update={**scale, "coarser": factors})


def _clean(config: ViewConfig) -> ViewConfig:
    """The same place of the image, its intensities as they are."""
    return config.model_copy(update={"intensity": 0.0, "blur": 0.0, "noise": 0.0})
