"""From a batch of the stream to the views the objectives train on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_shards.stream.batch import Batch
from data_shards.vocabulary import Task
from pretrain.backbone.position import Spacing
from pretrain.config import PretrainConfig
from pretrain.metadata import Metadata
from pretrain.objectives import Views
from pretrain.spacing import as_spacing, on_device
from pretrain.views import augment
from pretrain.views.counter_rng import sample_keys, uniforms

VIEW_COUNT = 2
_METADATA_PURPOSE = 1 << 20
"""Added to the view number where keys are drawn for metadata dropout, so that no pixel shares its numbers."""


class ViewFactory:
    """Makes views whose randomness is a function of (seed, epoch, sample, view) alone.

    Args:
        config: seed, augmentation and metadata dropout are taken from it.
        device: where views are computed.
    """

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self._seed = config.seed
        self._views = [dataset.views or config.views for dataset in config.data.datasets]
        self._dropout = config.model.metadata_dropout
        self._device = device

    def __call__(self, batch: Batch) -> Views:
        """The views of own rows of a global batch, with their spacing where that of the images is known."""
        samples_B = batch.sample_B.numpy()
        images = batch.images.to(self._device, non_blocking=True)
        views, metadata, spacing_mm = [], [], []
        for view in range(VIEW_COUNT):
            keys_B = sample_keys(self._seed, batch.dataset_epoch, batch.dataset, samples_B, view)
            views.append(augment(images, keys_B, self._views[batch.dataset], batch.spacing_mm_BA, view))
            spacing_mm.append(self._spacing(batch, views[view]))
            keys_B = sample_keys(self._seed, batch.dataset_epoch, batch.dataset, samples_B, view + _METADATA_PURPOSE)
            metadata.append(self._drop(batch, uniforms(keys_B, 3)).to(self._device))
        return Views(tuple(views), tuple(metadata), batch.rows, tuple(spacing_mm))

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
