"""The two things that are trained: a head on cached features, and a backbone with a head on images."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.features import as_rows, metadata_rows, rows_that_fit, spacing_of
from finetune.heads import Head
from finetune.labelled import as_tensor
from finetune.strategies import backbone_groups, head_groups
from pretrain.backbone import Medformer, normalise
from pretrain.backbone.position import Spacing
from pretrain.metadata import Metadata
from pretrain.views import ViewConfig, augment
from pretrain.views.counter_rng import sample_keys

LIGHT = ViewConfig(
    crop_scale_min=0.7,
    crop_aspect=1.1,
    rotation_deg=10.0,
    flip_horizontal=0.0,
    intensity=0.5,
    brightness=0.1,
    contrast=0.2,
    gamma=0.1,
    colour=0.05,
    blur=0.0,
    noise=0.0,
)
"""Weaker than in pretraining, for a label must survive it; nothing is mirrored: a label can be about the side."""


class CachedLearner:
    """A head on features that were computed once.

    Args:
        head: what is trained.
        features: ``(N, D)`` or ``(N, T, D)``, what the head reads.
        rate: peak learning rate.
        weight_decay: of the weight matrices.
    """

    def __init__(self, head: Head, features: np.ndarray, rate: float, weight_decay: float) -> None:
        self.module: nn.Module = head
        self._groups = head_groups(head, rate, weight_decay)
        self._features = torch.from_numpy(features)

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups."""
        return self._groups

    @property
    def at_once(self) -> int:
        """All: features are small, and here already."""
        return len(self._features)

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the images at ``rows``; cached features are never augmented."""
        logits_BK: Tensor = self.module(self._features[torch.from_numpy(rows)])
        return logits_BK


class Network(nn.Module):
    """A backbone and a head.

    Args:
        backbone: encodes the images.
        head: reads what it gives.
    """

    def __init__(self, backbone: Medformer, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor, metadata: Metadata | None = None, spacing_mm: Spacing = None) -> Tensor:
        """Logits ``(B, K)`` of normalised images."""
        features = self.backbone.features(images, metadata, spacing_mm, dense=self.head.reads == "tokens")
        logits_BK: Tensor = self.head(self.head.select(features))
        return logits_BK


class ImageLearner:
    """A whole network on images, lightly augmented.

    Args:
        network: what is trained.
        images: uint8, planes ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``.
        metadata: of the ``N`` images.
        spacing_mm: ``(N, A)``, NaN where it is not known; None when nothing is known. An augmented image counts as
            having the spacing of the image it was made of.
        rate: peak learning rate of the head.
        backbone_rate: peak learning rate of the last layer of the backbone.
        layer_decay: see :func:`finetune.strategies.backbone_groups`.
        weight_decay: of the weight matrices.
        augmented: whether training steps see augmented images.
        seed: fixes the augmentation.
    """

    def __init__(
        self,
        network: Network,
        images: np.ndarray,
        metadata: Metadata,
        spacing_mm: np.ndarray | None = None,
        *,
        rate: float,
        backbone_rate: float,
        layer_decay: float,
        weight_decay: float,
        augmented: bool,
        seed: int,
    ) -> None:
        self.module: nn.Module = network
        self._groups = head_groups(network.head, rate, weight_decay) + backbone_groups(
            network.backbone, backbone_rate, weight_decay, layer_decay
        )
        self._images = as_tensor(images)
        self._metadata = metadata
        self._spacing_NA = as_rows(spacing_mm)
        self._augmented = augmented
        self._seed = seed
        self._device = next(network.parameters()).device

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups."""
        return self._groups

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the images at ``rows``; the augmentation depends on the image, the step and the seed alone."""
        size = self.at_once
        if step is None and len(rows) > size:
            return torch.cat([self._logits(rows[start : start + size], step) for start in range(0, len(rows), size)])
        return self._logits(rows, step)

    @functools.cached_property
    def at_once(self) -> int:
        """How many images memory has room for in a training step.

        Raises:
            DataError: there is no room for one image.
        """
        network = self.module
        assert isinstance(network, Network)
        dense = network.head.reads == "tokens"
        spacing_mm = None if self._spacing_NA is None else self._spacing_NA.numpy()
        return rows_that_fit(network.backbone, self._images.numpy(), spacing_mm, dense=dense, train=True)

    def _logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        images = self._images[torch.from_numpy(rows)].to(self._device)
        if step is None or not self._augmented:
            inputs = normalise(images)
        else:
            spacing_BA = None if self._spacing_NA is None else self._spacing_NA[torch.from_numpy(rows)]
            inputs = augment(images, sample_keys(self._seed, step, 0, rows, 0), LIGHT, spacing_BA)
        spacing = spacing_of(self._spacing_NA, rows, self._device)
        logits_BK: Tensor = self.module(inputs, metadata_rows(self._metadata, rows).to(self._device), spacing)
        return logits_BK
