"""Hybrid loss: labels of the labelled cases, and the images of all of them, rebuilt from the dense queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.random_state import seeded
from finetune.steppers.base import Learner, register_stepper
from finetune.steppers.unlabelled import UnlabelledStepper
from pretrain.backbone.decoders import RestorationDecoder
from pretrain.backbone.study import Features


@runtime_checkable
class DenseLearner(Learner, Protocol):
    """A learner whose backbone is trained."""

    def dense(self, rows: np.ndarray, step: int) -> Iterator[tuple[Features, Tensor, int]]:
        """Features with tokens of augmented images of one shape, these images, and the stride of the tokens."""
        ...


@register_stepper("hybrid")
class HybridStepper(UnlabelledStepper):
    """Robert, Thome and Cord, HybridNet, ECCV 2018, section 3, in simple form.

    Two branches rebuild an image and their outputs are added: one from the dense tokens of the backbone, which the head
    reads too, the other from a narrow encoder of its own, for what has nothing to do with the class. The loss is the
    mean squared distance from the augmented image, of labelled and unlabelled cases. Losses between layers, the
    balancing of the branches and the stability term of the paper are left out. Decoders and second branch are thrown
    away after the fit.

    Raises:
        ConfigError: the backbone is not trained.
    """

    needs_backbone: ClassVar[bool] = True

    class Config(Document):
        """Weight of the images and width of the second branch."""

        weight: float = Field(1.0, ge=0, description="of the squared distance beside the loss of the labels")
        learning_rate: float = Field(0.001, gt=0, description="of decoders and second branch")
        channels: int = Field(4, ge=1, description="numbers per cell in the second branch")

    def begin(self) -> None:
        """Branches are made when the first images come."""
        super().begin()
        if not isinstance(self.learner, DenseLearner):
            raise ConfigError("stepper hybrid rebuilds images by the backbone, which is not trained here")
        self._images = self.learner
        self._drawn = self.drawn_of(np.concatenate([self.rows, self.unlabelled_rows]))
        self._branches: dict[tuple[int, int], TwoBranches] = {}
        self._optimizers: dict[tuple[int, int], torch.optim.Optimizer] = {}
        self._distance = 0.0

    def further(self, number: int) -> float:
        """The distance of rebuilt images."""
        if not self.config.weight:
            return 0.0
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        batch = next(self._drawn)
        total = 0.0
        for part in self.parts(batch):
            found = [
                (len(images), self._rebuilt(features, images, stride))
                for features, images, stride in self._images.dense(part, number)
            ]
            count = sum(size for size, _ in found)
            distance = torch.stack([size * loss for size, loss in found]).sum() / count
            total += self.descend(self.config.weight * distance * (len(part) / len(batch)), number)
        for optimizer in self._optimizers.values():
            optimizer.step()
        self._distance = total / self.config.weight
        return total

    def _rebuilt(self, features: Features, images: Tensor, stride: int) -> Tensor:
        key = (images.ndim - 2, images.shape[1])
        if key not in self._branches:
            assert features.tokens_BTD is not None
            with seeded(self.drawing.seed):
                made = TwoBranches(features.tokens_BTD.shape[-1], *key[::-1], stride, self.config.channels)
            self._branches[key] = made.to(images.device)
            self._optimizers[key] = torch.optim.AdamW(made.parameters(), lr=self.config.learning_rate)
        return F.mse_loss(self._branches[key](features, images), images)

    @property
    def report(self) -> dict[str, Any]:
        """With the squared distance in the last step."""
        return {**super().report, "distance": self._distance}


class TwoBranches(nn.Module):
    """What the class needs and what it does not, added up to the image.

    Args:
        dim: channels of the tokens.
        channels: of the images.
        axes: 2 or 3.
        stride: voxels per token.
        narrow: numbers per cell in the second branch.
    """

    def __init__(self, dim: int, channels: int, axes: int, stride: int, narrow: int) -> None:
        super().__init__()
        self.decoder = RestorationDecoder(dim, channels, stride, axes)
        conv, back = (nn.Conv2d, nn.ConvTranspose2d) if axes == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        self.stride = stride
        self.second = nn.Sequential(
            conv(channels, narrow, stride, stride), nn.GELU(), back(narrow, channels, stride, stride)
        )

    def forward(self, features: Features, images: Tensor) -> Tensor:
        """Rebuilt images, of the shape of ``images``."""
        short = [-length % self.stride for length in images.shape[2:]]
        padded = F.pad(images, [number for length in reversed(short) for number in (0, length)])
        rest = self.second(padded)
        for axis, length in enumerate(images.shape[2:], start=2):
            rest = rest.narrow(axis, 0, length)
        rebuilt: Tensor = self.decoder(features, images) + rest
        return rebuilt
