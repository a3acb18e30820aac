"""The leak control: plain SGD whose subset is drawn again whenever the batch size changes.

In the template that the authors of DBA have published, the few images are drawn where the data loader is made, and a
loader is made anew for every new batch size. There is no selection of gradients here. So that nothing of DBA is in it,
the batch size follows a rule of its own: at the end of an epoch it changes with a given probability, by 8, up or down
by the toss of a coin, and back where it would leave its bounds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from data_shards.support.documents import Document
from finetune.steppers.base import cut, permutations
from finetune.steppers.plain import PlainStepper


class ChangingStepper(PlainStepper):
    """Plain steps with batches of changing size.

    It is of the study and not known by name. Where the subset is drawn anew, that is from all cases of the objective,
    as many of each class as there were.
    """

    name = "changing"

    class Config(Document):
        """How often the size changes, and what that does."""

        probability: float = Field(ge=0, le=1, description="that the size changes at the end of an epoch")
        redrawn: bool = Field(description="whether a change draws the subset anew; if not, all is fixed but the size")
        by: int = Field(8, ge=1, description="how much it changes")
        least: int = Field(64, ge=1, description="smallest size, or all cases where they are fewer")
        most: int = Field(256, ge=1, description="largest size, or all cases where they are fewer")

    def begin(self) -> None:
        """The size is the given one, the subset the given one."""
        super().begin()
        self._toss = np.random.default_rng([self.drawing.seed, 2])
        self._size, self._changes = self.batch_size(0), 0
        self._left = self._steps_of_an_epoch()

    def step(self, number: int) -> float:
        """One step; before it, at the start of an epoch, perhaps a change."""
        if not self._left:
            if self._toss.random() < self.config.probability:
                self._change()
            self._left = self._steps_of_an_epoch()
        self._left -= 1
        return super().step(number)

    def _steps_of_an_epoch(self) -> int:
        return math.ceil(len(self.rows) / self._size)

    def _change(self) -> None:
        least, most = (min(bound, len(self.rows)) for bound in (self.config.least, self.config.most))
        by = self.config.by if self._toss.random() < 0.5 else -self.config.by
        size = self._size + by if least <= self._size + by <= most else self._size - by
        self._size = min(max(size, least), most)
        self._changes += 1
        if self.config.redrawn:
            self.rows = self._drawn()
        self._batches = cut(permutations(self.rows, self.drawing.seed + self._changes), self._size)

    def _drawn(self) -> np.ndarray:
        """Other cases, as many of each class."""
        stratum_N = self.objective.target.strata(self.objective.labels)
        found = []
        for stratum, count in zip(*np.unique(stratum_N[self.rows], return_counts=True), strict=True):
            found.append(self._toss.choice(np.flatnonzero(stratum_N == stratum), count, replace=False))
        return np.sort(np.concatenate(found))

    @property
    def report(self) -> dict[str, Any]:
        """How often the size changed, and what it was at the end."""
        return {"changes": self._changes, "batch_size": self._size}
