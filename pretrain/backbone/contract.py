"""What pretraining and fine-tuning ask of a backbone, ours or one that others wrote."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pretrain.backbone.position import Spacing
from pretrain.backbone.study import Features, StudyFeatures, StudyImage
from pretrain.metadata import Metadata


class Backbone(nn.Module, abc.ABC):
    """A network that makes features of images.

    Attributes:
        embed_dim: channels of embedding and tokens, ``D``.
        in_chans: canonical number of channels of images.
        img_size: nominal size, one number for each axis.
        stride: pixels per token along each axis, at the nominal size.
        voxel_mm: distance of voxels at which the network reads images; None for as they are.
    """

    embed_dim: int
    in_chans: int
    img_size: tuple[int, ...]
    stride: int
    voxel_mm: float | None

    @property
    def stem_args(self) -> dict[str, Any]:
        """Arguments that follow others by default; what is saved names them, lest it changes with the defaults."""
        return {}

    @property
    def network(self) -> nn.Module:
        """The module as timm makes it: what a bundle holds the weights of, and what knows of layers."""
        return self

    def reads(self, size: Sequence[int]) -> tuple[int, ...]:
        """Voxels along each axis as the network reads an image of so many, at whatever spacing."""
        return tuple(size)

    def cells(self, size: Sequence[int]) -> tuple[int, ...]:
        """Tokens along each axis of an image of which so many voxels are read, see :meth:`reads`."""
        return tuple(-(-length // self.stride) for length in size)

    @abc.abstractmethod
    def features(
        self, images: Tensor, metadata: Metadata | None = None, spacing_mm: Spacing = None, *, dense: bool = False
    ) -> Features:
        """Encode a batch of single images.

        Args:
            images: normalised (see :func:`~pretrain.backbone.normalise`), ``B,C,H,W`` or ``B,C,D,H,W``.
            metadata: what is known of each image; None for nothing.
            spacing_mm: distance between slices, rows and columns, one for all or one per image; None when unknown.
            dense: also give one token per cell of a grid over the image.
        """

    @abc.abstractmethod
    def study(
        self, images: Sequence[StudyImage], metadata: Metadata | None = None, *, dense: bool = False
    ) -> StudyFeatures:
        """Encode a batch of subjects with several images each; their order does not matter.

        Args:
            images: the images.
            metadata: organ and task of each subject; its modality is not used, each image has its own.
            dense: also give tokens of every image.
        """

    @abc.abstractmethod
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass instead of storing them."""

    @abc.abstractmethod
    def no_weight_decay(self) -> set[str]:
        """Names of parameters of this module that weight decay would pull to a meaningless zero."""
