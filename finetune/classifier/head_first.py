"""A head that is fitted to the frozen backbone before the backbone moves."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from finetune.classifier.given import Given, Plan
from finetune.classifier.member import reads_of_cases
from finetune.fit.features import features_of
from finetune.fit.learners import CachedLearner
from finetune.fit.linear import Selected, select_linear
from finetune.fit.loop import fit_steps
from finetune.fit.network import Readout
from finetune.fit.schedules import Schedule
from finetune.heads import HEADS, CaseFeatures
from finetune.heads.linear import DEFAULT_READS, SINGLE_READS, LinearHead
from finetune.splits import cross_folds
from finetune.steppers import STEPPERS
from pretrain.backbone import Backbone


class HeadFirst:
    """Fits heads as the strategy ``frozen`` does; each sees the cases it is fitted to and no others.

    A linear head becomes the penalised optimum, its read and penalty chosen by a cross-validation within these cases.
    Any other is trained by gradient on the features of the frozen backbone, which are computed once for all fits.

    Args:
        backbone: as it is before it moves.
        given: all labelled cases.
        plan: what the fit does.
    """

    def __init__(self, backbone: Backbone, given: Given, plan: Plan) -> None:
        self._backbone, self._given, self._plan = backbone, given, plan
        self._selected: dict[bytes, Selected] = {}

    def head_options(self, rows: np.ndarray) -> dict[str, Any]:
        """The options of the head for the cases at ``rows``, with what a linear one reads of them."""
        options = dict(self._plan.head_options)
        return {**options, "reads": self._linear(rows).reads} if self._plan.head == "linear" else options

    def chosen(self, rows: np.ndarray) -> dict[str, Any]:
        """For the record."""
        return self._linear(rows).chosen if self._plan.head == "linear" else {}

    def fit(self, readout: Readout, rows: np.ndarray, schedule: Schedule, seed: int) -> None:
        """Give ``readout`` the weights that fit the cases at ``rows``."""
        if isinstance(readout.head, LinearHead):
            affine = self._given.target.into_link(readout.link, self._linear(rows).fit.models[0].unstandardised())
            with torch.no_grad():
                readout.head.linear.weight.copy_(torch.from_numpy(affine.weight_KD))
                readout.head.linear.bias.copy_(torch.from_numpy(affine.bias_K))
            return
        device = next(readout.parameters()).device
        learner = CachedLearner(readout.cpu(), self._features(readout), self._plan.rates(schedule.rate))
        recipe = self._plan.recipe(schedule, seed, cycles=1)
        if STEPPERS.named(recipe.stepper).needs_backbone:
            recipe = replace(recipe, stepper="plain", stepper_config=STEPPERS.config("plain", None))
        fit_steps(learner, self._plan.objective(self._given), rows, recipe, schedule.steps)
        readout.to(device)

    def _features(self, readout: Readout) -> CaseFeatures:
        return self._dense if readout.head.needs_tokens else self._embeddings

    @cached_property
    def _dense(self) -> CaseFeatures:
        return features_of(self._backbone, self._given.shown, dense=True)

    @cached_property
    def _embeddings(self) -> CaseFeatures:
        return features_of(self._backbone, self._given.shown, dense=False)

    def _linear(self, rows: np.ndarray) -> Selected:
        key = rows.tobytes()
        if key not in self._selected:
            given, plan = self._given, self._plan
            wanted = HEADS.config(plan.head, plan.head_options).reads
            candidates = SINGLE_READS if wanted == "auto" else (wanted,)
            features = reads_of_cases(self._backbone, given.cases, candidates, None)
            subjects = None if given.subjects is None else given.subjects[rows]
            self._selected[key] = select_linear(
                {read: values[rows] for read, values in features.items()},
                given.labels[rows],
                given.target,
                cross_folds(given.strata[rows], plan.seed, subjects),
                balanced=plan.balanced or plan.evenly,
                candidates=candidates,
                default=DEFAULT_READS if wanted == "auto" else wanted,
            )
        return self._selected[key]
