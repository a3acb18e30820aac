"""What DBA and EDBA share: strides, bounds, epochs after which the batch size changes, and what is told of them."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.steppers.plain import PlainStepper

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


class AdaptiveStepper(PlainStepper, abc.ABC):
    """Plain draws in batches whose size changes from epoch to epoch; steps along a part of each batch.

    The cases are those that were given, drawn as the plain stepper draws them: a change of the batch size never draws
    others. An epoch ends with the batch in which as many cases were drawn as are given.
    """

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
        self._epochs = [self.sizes.start]
        self._drawn = 0
        self._seen: set[int] = set()
        self._used: set[int] = set()
        self._selected: list[int] = []
        self._by_layer: dict[str, list[int]] = {}
        self._curves: dict[str, list[float]] = {}
        super().begin()
        self.choices = np.random.default_rng([self.drawing.seed, 3])

    def batch_size(self, epoch: int) -> int:
        """Of an epoch that has begun; of a later one, that of the last that has."""
        return self._epochs[min(epoch, len(self._epochs) - 1)]

    def next_size(self) -> int:
        """Cases of the next batch."""
        return self._epochs[-1]

    @abc.abstractmethod
    def next_epoch(self, selected: list[int]) -> int:
        """The batch size of the epoch that begins.

        Args:
            selected: cases that were chosen in each of the choices of the epoch that has ended.
        """

    def groups_of(self, batch: np.ndarray) -> np.ndarray:
        """The number of its stride for each case of a batch; the last one may be shorter."""
        return np.arange(len(batch)) // self.sizes.stride

    def chose(self, batch: np.ndarray, number: int, chosen: dict[str, np.ndarray]) -> None:
        """Take note of a step, and end the epoch where it is over.

        Args:
            batch: the cases that were drawn.
            number: of the step.
            chosen: for each layer which of them it learns from.
        """
        self._seen.update(batch.tolist())
        for layer, mask_B in chosen.items():
            self._used.update(batch[mask_B].tolist())
            self._selected.append(int(mask_B.sum()))
            self._by_layer.setdefault(layer, []).append(int(mask_B.sum()))
        self._drawn += len(batch)
        if self._drawn < len(self.rows):
            return
        self._drawn -= len(self.rows)
        self.log("steps", number + 1)
        self.log("batch_size", self.next_size())
        self.log("selected", median(self._selected))
        self.log("distinct", len(self._seen))
        self._epochs.append(self.next_epoch(self._selected))
        self._selected = []

    def log(self, name: str, value: float) -> None:
        """Take down what a curve is at the end of an epoch."""
        self._curves.setdefault(name, []).append(value)

    @property
    def report(self) -> dict[str, Any]:
        """How many different cases were drawn and chosen, sizes by epoch, and the mean number chosen by layer."""
        return {
            "distinct_seen": len(self._seen),
            "distinct_chosen": len(self._used),
            "batches": {name: list(values) for name, values in self._curves.items()},
            "chosen_by_layer": {layer: float(np.mean(sizes)) for layer, sizes in self._by_layer.items()},
        }
