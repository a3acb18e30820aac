"""What DBA and EDBA share: strides, and bounds of what is chosen and of the batch."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.steppers.epochs import EpochStepper

_STRIDES = 8
_LEAST_SHARE = 4


class AdaptiveConfig(Document):
    """Sizes in cases. What is left out follows from the ``batch_size`` of the fit."""

    stride: int | None = Field(
        None, ge=1, description="cases that are chosen together; an eighth of the batch by default"
    )
    min_batch: int | None = Field(
        None, ge=1, description="fewest cases of a batch, and that are chosen of one; a quarter of the batch by default"
    )
    max_batch: int | None = Field(
        None, ge=1, description="most cases of a batch, and that are chosen of one; batch_size by default"
    )
    delta: int | None = Field(None, ge=1, description="by which the batch grows or shrinks; the stride by default")

    @model_validator(mode="after")
    def _in_order(self) -> AdaptiveConfig:
        if self.min_batch is not None and self.max_batch is not None and self.min_batch > self.max_batch:
            raise ValueError(f"min_batch {self.min_batch} is above max_batch {self.max_batch}")
        return self


@dataclass(frozen=True)
class Sizes:
    """The options with their defaults filled in.

    Attributes:
        stride: cases that are chosen together.
        least: fewest cases.
        most: most cases.
        delta: by which the batch grows or shrinks.
        start: cases of the first batches.
    """

    stride: int
    least: int
    most: int
    delta: int
    start: int

    @classmethod
    def of(cls, name: str, config: AdaptiveConfig, batch_size: int) -> Sizes:
        """Of a stepper.

        Raises:
            ConfigError: a stride is larger than the batch, or a minimum above the maximum.
        """
        stride = config.stride or max(1, batch_size // _STRIDES)
        if stride > batch_size:
            raise ConfigError(f"stepper {name}: stride {stride} is larger than the batch of {batch_size}")
        most = config.max_batch or batch_size
        least = config.min_batch or min(max(stride, batch_size // _LEAST_SHARE), most)
        if least > most:
            raise ConfigError(
                f"stepper {name}: min_batch {least} is above max_batch {most}, which is batch_size by default"
            )
        return cls(stride, least, most, config.delta or stride, min(max(batch_size, least), most))

    def among(self, cases: int) -> Sizes:
        """The same where there are only so many cases."""
        return Sizes(*(min(each, cases) for each in (self.stride, self.least, self.most, self.delta, self.start)))


class AdaptiveStepper(EpochStepper, abc.ABC):
    """Batches of strides of cases, whose number follows from what was chosen."""

    class Config(AdaptiveConfig):
        """As of :class:`AdaptiveConfig`."""

    @classmethod
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """Sizes are in order."""
        del mixup
        Sizes.of(cls.name, config, batch_size)

    def begin(self) -> None:
        """The first batch size."""
        self.check(self.config, self.drawing.batch_size, self.drawing.mixup)
        self.sizes = Sizes.of(self.name, self.config, self.drawing.batch_size).among(len(self.rows))
        super().begin()

    def first_size(self) -> int:
        """As the options say."""
        return self.sizes.start

    @abc.abstractmethod
    def next_epoch(self, selected: list[int]) -> int:
        """By a rule of its own."""

    def groups_of(self, batch: np.ndarray) -> np.ndarray:
        """The number of its stride for each case of a batch; the last one may be shorter."""
        return np.arange(len(batch)) // self.sizes.stride
