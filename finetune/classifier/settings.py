"""From the parameters of an estimator to a fit: checked, planned, done and calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, nearest
from finetune.classifier.adaptation import Adapted, adapt_head, adapt_linear, adapt_network
from finetune.classifier.calibration import fit_temperature
from finetune.classifier.conformal import Conformal
from finetune.classifier.given import Given, Plan
from finetune.classifier.site import check_alignment
from finetune.fit.schedules import SCHEDULES, Schedule, candidates
from finetune.heads import HEADS
from finetune.heads.linear import FROZEN_READS
from finetune.slices import Slices
from finetune.splits import carved, cross_folds, selection_folds, smallest_class
from finetune.steppers import STEPPERS
from finetune.strategies import create_strategy
from pretrain.backbone import Backbone

PRETRAINED_LAYER_DECAY = 0.75

FULL_SELECTION_MINIMUM = 50
"""Subjects in the smallest class from which on the steps of a full fit are chosen on held-out labels."""

SETS_BY_CLASS_MINIMUM = 10
"""Held-out subjects in the smallest class from which on each class has sets of the stated coverage by itself."""

ENSEMBLES = ("none", "folds", "seeds", "snapshots")
SAMPLERS = ("shuffled", "balanced")
LOSSES = ("nll", "focal")

_NOTHING_HELD_OUT = "none: a class has a single subject, so none can be held out"


def check_parameters(params: Mapping[str, Any]) -> None:
    """Refuse parameters of an estimator that cannot be used, or not together.

    Raises:
        ConfigError: says which, and what is expected.
    """
    strategy = create_strategy(params["strategy"], params["strategy_options"])
    head = HEADS.config(params["head"], params["head_options"])
    options = STEPPERS.config(params["stepper"], params["stepper_options"])
    if params["class_weight"] not in (None, "balanced"):
        raise ConfigError(f"class_weight is 'balanced' or None, found {params['class_weight']!r}")
    for name, valid in (("ensemble", ENSEMBLES), ("sampler", SAMPLERS), ("loss", LOSSES)):
        if (found := params[name]) not in valid:
            raise ConfigError(f"{name} is one of {', '.join(valid)}, found {found!r}{nearest(str(found), valid)}")
    for name in ("learning_rate", "max_steps", "batch_size", "backbone_rate", "layer_decay", "members"):
        if (value := params[name]) is not None and not value > 0:
            raise ConfigError(f"{name} must be positive, found {value}")
    for name in ("mixup", "mc_dropout", "weight_decay"):
        if not params[name] >= 0:
            raise ConfigError(f"{name} is 0 or above, found {params[name]}")
    if not 0 < params["coverage"] < 1:
        raise ConfigError(f"coverage is a share between 0 and 1, found {params['coverage']}")
    STEPPERS.named(params["stepper"]).check(options, params["batch_size"], params["mixup"])
    if params["slices"] is not None:
        parse(Slices, dict(params["slices"]), "slices")
    if params["window"] is not None and strategy.trains_backbone:
        raise ConfigError(f"window is for a frozen network, and strategy {params['strategy']} trains it")
    steps, members = params["max_steps"], params["members"]
    if params["ensemble"] == "snapshots" and steps is not None and steps < members:
        raise ConfigError(f"{members} snapshots need at least as many steps, found {steps}")
    if STEPPERS.named(params["stepper"]).needs_backbone and not strategy.trains_backbone:
        raise ConfigError(
            f"stepper {params['stepper']} is for strategies that train the backbone, and {params['strategy']} does not"
        )
    reads = str(head.reads) if params["head"] == "linear" else ""
    check_alignment(params, trains_backbone=strategy.trains_backbone, reads=reads)
    # A stepper that does more than follow the gradient of the labels gives another head than their optimum.
    solved = params["head"] == "linear" and not strategy.trains_backbone and params["stepper"] == "plain"
    for name, least in (("loss", "nll"), ("mixup", 0), ("mc_dropout", 0)):
        if solved and params[name] != least:
            raise ConfigError(
                f"{name} {params[name]!r} is for training by gradient; a linear head on frozen features is computed"
            )
    if params["mc_dropout"] and not getattr(head, "dropout", 0):
        raise ConfigError("mc_dropout draws from the dropout of the head, which is 0; head_options={'dropout': 0.2}")
    if params["head"] == "linear" and head.reads in FROZEN_READS and not solved:
        raise ConfigError(f"reads {head.reads!r} is for frozen features; a network is trained on one read of its own")


@dataclass(frozen=True)
class Settings:
    """What a fit is asked to do.

    Attributes:
        pretrained: whether the backbone has weights that were learned.
        params: of the estimator, checked.
    """

    pretrained: bool
    params: Mapping[str, Any]

    @property
    def plan(self) -> Plan:
        """As the fits take it."""
        params = self.params
        layer_decay = PRETRAINED_LAYER_DECAY if self.pretrained else 1.0
        return Plan(
            head=params["head"],
            head_options=dict(params["head_options"] or {}),
            strategy=params["strategy"],
            strategy_options=dict(params["strategy_options"] or {}),
            stepper=params["stepper"],
            stepper_options=dict(params["stepper_options"] or {}),
            balanced=params["class_weight"] == "balanced",
            evenly=params["sampler"] == "balanced",
            loss=params["loss"],
            mixup=params["mixup"],
            backbone_rate=params["backbone_rate"],
            layer_decay=layer_decay if params["layer_decay"] is None else params["layer_decay"],
            weight_decay=params["weight_decay"],
            batch_size=params["batch_size"],
            augmented=params["augmentation"],
            ensemble=params["ensemble"],
            members=params["members"],
            scored=params["calibrate"],
            seed=params["seed"],
            alignment=None if params["alignment"] is None else dict(params["alignment"]),
        )

    def adapt(self, backbone: Backbone, given: Given) -> tuple[Adapted, str]:
        """What was fitted, and how hyper-parameters were chosen, in words."""
        plan, strata_N = self.plan, given.strata
        plan.objective(given)  # refuses what does not fit the target before anything is computed
        if create_strategy(plan.strategy, plan.strategy_options).trains_backbone:
            return self._adapt_network(backbone, given, plan)
        solved = plan.head == "linear" and plan.stepper == "plain"
        every = solved or plan.ensemble == "folds"
        folds = (cross_folds if every else selection_folds)(strata_N, plan.seed, given.subjects)
        if not folds:
            said = _NOTHING_HELD_OUT
        elif len(folds) == 1:
            said = "carved fifth of the given labels"
        else:
            said = f"{len(folds)}-fold cross-validation within the given labels"
        if solved:
            return adapt_linear(backbone, given, folds, plan), said
        steps, rate = self.params["max_steps"] or SCHEDULES[0].steps, self.params["learning_rate"] or SCHEDULES[0].rate
        stop = plan.ensemble != "snapshots"
        return adapt_head(backbone, given, folds, plan, [Schedule(steps, rate)], stop=stop), said

    def _adapt_network(self, backbone: Backbone, given: Given, plan: Plan) -> tuple[Adapted, str]:
        schedules = candidates(self.params["max_steps"], self.params["learning_rate"])
        strata_N = given.strata
        stop = smallest_class(strata_N, given.subjects) >= FULL_SELECTION_MINIMUM and plan.ensemble != "snapshots"
        folds = (cross_folds if plan.ensemble == "folds" else carved)(strata_N, plan.seed, given.subjects)
        where = "a cross-validation" if len(folds) > 1 else "a carved part"
        if not folds:
            said = f"{_NOTHING_HELD_OUT}; {schedules[0]}"
        elif stop:
            said = f"schedule and number of steps by {where} of the given labels"
        elif len(schedules) == 1:
            said = "none: the whole schedule is run, of which nothing was left open"
        else:
            said = f"schedule by {where} of the given labels, run whole"
        return adapt_network(backbone, given, folds, plan, schedules, stop=stop), said

    def calibrated(self, adapted: Adapted, given: Given) -> tuple[float, Conformal | None]:
        """The temperature, and what gives sets of stated coverage."""
        if adapted.held_out is None:
            return 1.0, None
        known = np.isfinite(adapted.held_out).all(axis=1)
        scores, labels = adapted.held_out[known], given.labels[known]
        subjects = None if given.subjects is None else given.subjects[known]
        temperature = fit_temperature(given.target, scores, labels, subjects) if self.params["calibrate"] else 1.0
        enough = smallest_class(given.target.strata(labels), subjects) >= SETS_BY_CLASS_MINIMUM
        wanted = self.params["sets_by_class"]
        conformal = Conformal.fit(
            given.target,
            given.target.probabilities(scores, temperature),
            labels,
            1 - self.params["coverage"],
            subjects,
            by_class=given.target.classifies and (enough if wanted is None else wanted),
        )
        return temperature, conformal
