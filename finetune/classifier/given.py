"""What a fit is given, and what it is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from finetune.alignment import Alignment, alignment_config, create_alignment
from finetune.cases import Cases
from finetune.classifier.unlabelled import together
from finetune.fit.loop import Recipe
from finetune.fit.schedules import Schedule
from finetune.objective import Loss, Objective
from finetune.random_state import seeded
from finetune.splits import Folds
from finetune.steppers import STEPPERS, Drawing
from finetune.strategies import Rates
from finetune.targets import Target

BACKBONE_RATIO = 0.1
"""Learning rate of the backbone as a share of that of the head; of a fresh one too, which ten times more throws off."""


@dataclass(frozen=True)
class Given:
    """Labelled cases.

    Attributes:
        cases: their images.
        labels: ``(N, L)``.
        target: what they are labels of, fitted to them.
        subjects: number of the subject of each case; None where each is its own.
        unlabelled: further cases, for steppers that learn from them; none of them is labelled or held out.
        elsewhere: how many of the labelled cases, the last ones, are of the target site.
        site: cases of the target site without labels, for alignments; none of them is labelled or held out.
    """

    cases: Cases
    labels: np.ndarray
    target: Target
    subjects: np.ndarray | None
    unlabelled: Cases | None = None
    elsewhere: int = 0
    site: Cases | None = None

    @cached_property
    def shown(self) -> Cases:
        """What learners see: the labelled cases, then the unlabelled ones, then those of the target site."""
        found = self.cases if self.unlabelled is None else together(self.cases, self.unlabelled)
        return found if self.site is None else together(found, self.site, "target")

    @property
    def at_home(self) -> int:
        """How many of the labelled cases, the first ones, are of the source site."""
        return len(self.labels) - self.elsewhere

    def target_rows(self, rows: np.ndarray) -> np.ndarray:
        """The cases of the target site that a fit to the labelled cases at ``rows`` may see."""
        there = 0 if self.site is None else len(self.site)
        return np.concatenate([rows[rows >= self.at_home], np.arange(len(self.shown) - there, len(self.shown))])

    @property
    def strata(self) -> np.ndarray:
        """One stratum per case."""
        return self.target.strata(self.labels)


@dataclass(frozen=True)
class Plan:
    """What a fit does.

    Attributes:
        head: name of the head.
        head_options: its options.
        strategy: name of the strategy.
        strategy_options: its options.
        stepper: name of the stepper.
        stepper_options: its options.
        balanced: weight classes inversely to their frequency.
        evenly: draw all classes equally often.
        loss: ``nll`` or ``focal``.
        mixup: see :class:`~finetune.steppers.base.Drawing`.
        backbone_rate: peak rate of the last layer; None for a tenth of that of the head.
        layer_decay: factor from layer to layer.
        weight_decay: of weight matrices.
        batch_size: cases per step.
        augmented: whether training sees augmented images.
        ensemble: ``none``, ``folds``, ``seeds`` or ``snapshots``.
        members: of the ensemble.
        scored: whether held-out log scores are wanted, for calibration.
        seed: of initial weights, splits, batches and augmentation.
        alignment: of the two sites, by name with its options; None, or a weight of 0, for none.
    """

    head: str = "linear"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "frozen"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    stepper: str = "plain"
    stepper_options: Mapping[str, Any] = field(default_factory=dict)
    balanced: bool = True
    evenly: bool = False
    loss: Loss = "nll"
    mixup: float = 0.0
    backbone_rate: float | None = None
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    batch_size: int = 16
    augmented: bool = True
    ensemble: str = "none"
    members: int = 5
    scored: bool = True
    seed: int = 0
    alignment: Mapping[str, Any] | None = None

    @property
    def aligns(self) -> bool:
        """Whether the sites are aligned; a weight of 0 is no alignment."""
        return self.alignment is not None and bool(alignment_config(self.alignment)[1].weight)

    def aligning(self, dim: int, seed: int) -> Alignment:
        """A new alignment of so many numbers per case, its own weights drawn from the seed; where the plan aligns."""
        assert self.alignment is not None
        with seeded(seed):
            return create_alignment(self.alignment, dim)

    def objective(self, given: Given) -> Objective:
        """Of all given labels."""
        return Objective.of(
            given.target,
            given.labels,
            balanced=self.balanced,
            drawn_evenly=self.evenly,
            loss=self.loss,
            unlabelled=0 if given.unlabelled is None else len(given.unlabelled),
        )

    def recipe(self, schedule: Schedule, seed: int | None = None, cycles: int | None = None) -> Recipe:
        """Of a schedule; seed and number of cycles are those of the plan when left out."""
        return Recipe(
            max_steps=schedule.steps,
            drawing=Drawing(self.batch_size, self.seed if seed is None else seed, self.evenly, self.mixup),
            stepper=self.stepper,
            stepper_config=STEPPERS.config(self.stepper, self.stepper_options),
            cycles=cycles or (self.members if self.ensemble == "snapshots" else 1),
        )

    def rates(self, rate: float) -> Rates:
        """Peak rates where the head has this one."""
        backbone = BACKBONE_RATIO * rate if self.backbone_rate is None else self.backbone_rate
        return Rates(rate, backbone, self.layer_decay, self.weight_decay)


def scattered(held_out: list[np.ndarray], folds: Folds, count: int) -> np.ndarray | None:
    """Held-out log scores ``(N, C)`` at their cases; NaN where a case was in no held-out part; None without any."""
    if not held_out:
        return None
    scores = np.full((count, held_out[0].shape[1]), np.nan)
    for part, (_, rows) in zip(held_out, folds, strict=True):
        scores[rows] = part
    return scores
