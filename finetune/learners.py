"""The two things that are trained: a head on cached features, and a backbone with a head on images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.features import metadata_rows
from finetune.heads import Head
from finetune.labelled import as_tensor
from finetune.strategies import backbone_groups, head_groups
from pretrain.backbone import Medformer, normalise
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

    def forward(self, images_BCHW: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Logits ``(B, K)`` of normalised images."""
        features = self.backbone.features(images_BCHW, metadata, dense=self.head.reads == "tokens")
        logits_BK: Tensor = self.head(self.head.select(features))
        return logits_BK


class ImageLearner:
    """A whole network on images, lightly augmented.

    Args:
        network: what is trained.
        images: uint8 ``(N, C, H, W)``.
        metadata: of the ``N`` images.
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
        self._augmented = augmented
        self._seed = seed
        self._device = next(network.parameters()).device

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups."""
        return self._groups

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the images at ``rows``; the augmentation depends on the image, the step and the seed alone."""
        images = self._images[torch.from_numpy(rows)].to(self._device)
        if step is None or not self._augmented:
            inputs = normalise(images)
        else:
            inputs = augment(images, sample_keys(self._seed, step, 0, rows, 0), LIGHT)
        logits_BK: Tensor = self.module(inputs, metadata_rows(self._metadata, rows).to(self._device))
        return logits_BK
