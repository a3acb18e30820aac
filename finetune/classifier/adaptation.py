"""From a backbone and a few labels to fitted models: a linear vote, a head on cached features, a whole network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.support.errors import ConfigError, DataError
from finetune.classifier.given import Given, Plan, scattered
from finetune.classifier.head_first import HeadFirst
from finetune.classifier.member import Member, reads_of_cases
from finetune.classifier.seen import Seen
from finetune.classifier.site import FROZEN_ALIGNED
from finetune.fit.aligned import AlignedLearner, width_read
from finetune.fit.features import features_of
from finetune.fit.learners import CachedLearner, ImageLearner
from finetune.fit.linear import RAW, TANGENT, VOTE, select_linear
from finetune.fit.loop import Staged, cycle_ends, fit_steps
from finetune.fit.network import Network, Readout
from finetune.fit.raw import raw_sides
from finetune.fit.schedules import Schedule, choose_schedule
from finetune.fit.second_order import cases_at_once
from finetune.fit.tangent import varies
from finetune.heads import HEADS, create_head
from finetune.objective import Objective
from finetune.random_state import reseed, seeded
from finetune.splits import Folds
from finetune.strategies import create_strategy
from pretrain.backbone import Backbone

_APART = 1_000_003
"""Between the seeds of members."""


@dataclass(frozen=True)
class Adapted:
    """What a fit gave.

    Attributes:
        members: one fitted model, or those of an ensemble.
        chosen: hyper-parameters, and the held-out loss of every candidate.
        held_out: log scores ``(N, C)`` that given cases got from a fit without them; NaN for cases that were in no
            held-out part; None where nothing was held out.
    """

    members: tuple[Member, ...]
    chosen: dict[str, Any]
    held_out: np.ndarray | None


def adapt_linear(backbone: Backbone, given: Given, folds: Folds, plan: Plan) -> Adapted:
    """The penalised optimum on frozen features, see :mod:`finetune.fit.linear`.

    Args:
        backbone: is not changed.
        given: labelled cases.
        folds: where penalty and reads are chosen.
        plan: what to do.

    Raises:
        ConfigError: the ensemble asks for what a linear head cannot differ in.
    """
    if plan.ensemble in ("seeds", "snapshots"):
        raise ConfigError(f"a linear head on frozen features is the same for all {plan.ensemble}; ensemble folds")
    backbone.eval()
    options = HEADS.config(plan.head, plan.head_options)
    wanted = "vote" if options.reads == "auto" else options.reads
    features, sides = _read(backbone, given, wanted, folds, plan)

    selected = select_linear(
        features,
        given.labels,
        given.target,
        folds,
        balanced=plan.balanced or plan.evenly,
        candidates=[wanted],
        channels=options.channels,
    )
    fits = [selected.fit]
    if plan.ensemble == "folds":
        fits = [
            select_linear(
                features,
                given.labels,
                given.target,
                (),
                balanced=plan.balanced or plan.evenly,
                candidates=[selected.reads],
                refit=train,
                strengths=selected.strengths,
                channels=options.channels,
            ).fit
            for train, _ in required(folds)
        ]
    used = sides if any(RAW in fit.reads for fit in fits) else None
    members = tuple(Member(backbone, fit, given.target, sides=used) for fit in fits)
    return Adapted(members, selected.chosen, selected.held_out)


def _read(
    backbone: Backbone, given: Given, wanted: str, folds: Folds, plan: Plan
) -> tuple[dict[str, np.ndarray], Mapping[str, tuple[int, ...]] | None]:
    """Features by read, and the sides of raw pixels; of a vote, those that can vote.

    With an alignment, those of the source site as those of the target site would be.

    Raises:
        DataError: cases do not have what is wanted.
    """
    cases = given.cases
    if plan.aligns:
        return _transported(backbone, given, wanted, plan), None
    sides = raw_sides(cases) if wanted in ("vote", RAW) else None
    if wanted == RAW and sides is None:
        raise DataError(f"{cases.name}: not every case has the same images; they have no raw pixels in common")
    if wanted != "vote":
        return reads_of_cases(backbone, cases, (wanted,), sides), sides
    out = {RAW} if sides is None else set()
    if len(cases) > cases_at_once(backbone, cases):
        out.add(TANGENT)
    features = reads_of_cases(backbone, cases, tuple(read for read in VOTE if read not in out), sides)
    fitted_to = [train for train, _ in folds] or [np.arange(len(cases))]
    if TANGENT in features and not all(varies(features[TANGENT][rows]) for rows in fitted_to):
        del features[TANGENT]
    return features, sides


def _transported(backbone: Backbone, given: Given, wanted: str, plan: Plan) -> dict[str, np.ndarray]:
    """Features by read, those of the source site brought to the target site by all cases of both, without labels.

    Raises:
        DataError: there are fewer than two cases of the target site.
    """
    rows = given.target_rows(np.arange(len(given.labels)))
    if len(rows) < 2:
        raise DataError(f"{len(rows)} images of the target site; an alignment needs two, better a hundred")
    reads = tuple(read for read in VOTE if read in FROZEN_ALIGNED) if wanted == "vote" else (wanted,)
    found = {}
    for read, all_ND in reads_of_cases(backbone, given.shown, reads, None).items():
        here_ND = plan.aligning(all_ND.shape[1], plan.seed).transported(all_ND[: given.at_home], all_ND[rows])
        found[read] = np.concatenate([here_ND, all_ND[given.at_home : len(given.labels)]])
    return found


def adapt_head(
    backbone: Backbone, given: Given, folds: Folds, plan: Plan, schedules: Sequence[Schedule], *, stop: bool
) -> Adapted:
    """A head trained on cached features of the frozen backbone.

    Args:
        backbone: is not changed.
        given: labelled cases.
        folds: where the number of steps is chosen; without any, the whole schedule is run.
        plan: what to do.
        schedules: candidates of length and rate.
        stop: whether the number of steps is chosen.
    """
    backbone.eval()
    dense = new_readout(backbone, given, plan, plan.seed).head.needs_tokens
    features = features_of(backbone, given.shown, dense=dense)

    def build(schedule: Schedule, rows: np.ndarray, seed: int) -> CachedLearner:
        reseed(seed)
        return CachedLearner(new_readout(backbone, given, plan, seed), features, plan.rates(schedule.rate))

    with seeded(plan.seed):
        found = _trained(build, given, folds, plan, schedules, stop=stop)
    device = next(backbone.parameters()).device
    modules = [module.eval().to(device) for module in found.modules]
    members = tuple(Member(backbone, module, given.target, found.offset) for module in modules)
    return Adapted(members, found.chosen, found.held_out)


def adapt_network(
    backbone: Backbone, given: Given, folds: Folds, plan: Plan, schedules: Sequence[Schedule], *, stop: bool
) -> Adapted:
    """Backbone and head trained together on images, as the strategy says.

    Args:
        backbone: is not changed; every fit trains a copy.
        given: labelled cases.
        folds: where the schedule is chosen; without any, the first is run.
        plan: what to do.
        schedules: candidates.
        stop: whether the number of steps is chosen, too.
    """
    strategy = create_strategy(plan.strategy, plan.strategy_options)
    device = next(backbone.parameters()).device
    backbone.eval()
    first = HeadFirst(backbone, given, plan) if strategy.head_first else None

    def build(schedule: Schedule, rows: np.ndarray, seed: int) -> ImageLearner:
        options = plan.head_options if first is None else first.head_options(rows)
        readout = new_readout(backbone, given, plan, seed, options).to(device)
        reseed(seed, device)
        if first is not None:
            first.fit(readout, rows, schedule, seed)
        network = Network(copy.deepcopy(backbone), readout)
        strategy.prepare(network.backbone)
        reseed(seed, device)  # dropout and stochastic depth draw from here on
        rates = plan.rates(schedule.rate)
        if not plan.aligns:
            return ImageLearner(network, given.shown, strategy, rates, augmented=plan.augmented, seed=seed)
        return AlignedLearner(
            network,
            given.shown,
            strategy,
            rates,
            augmented=plan.augmented,
            seed=seed,
            alignment=plan.aligning(width_read(network), seed).to(device),
            target_rows=given.target_rows(rows),
            batch_size=min(plan.batch_size, len(rows)),
            steps=schedule.steps,
        )

    with seeded(plan.seed, device):
        found = _trained(build, given, folds, plan, schedules, stop=stop)
    for network in found.modules:
        strategy.finish(network.backbone)
        network.eval()
    members = tuple(Member(each.backbone, each.readout, given.target, found.offset) for each in found.modules)
    rates = {"backbone": plan.backbone_rate, "layer_decay": plan.layer_decay, "weight_decay": plan.weight_decay}
    chosen = {**found.chosen, "rates": rates}
    if first is not None:
        chosen["first"] = first.chosen(np.arange(len(given.labels)))
    return Adapted(members, chosen, found.held_out)


def new_readout(
    backbone: Backbone, given: Given, plan: Plan, seed: int, options: Mapping[str, Any] | None = None
) -> Readout:
    """A head with its initial weights, and the link of the target.

    Args:
        backbone: whose features it reads.
        given: what it is fitted to.
        plan: names the head.
        seed: of the weights.
        options: of the head; those of the plan when left out.
    """
    options = joining(plan.head, plan.head_options if options is None else options, given)
    with seeded(seed):
        head = create_head(plan.head, int(backbone.embed_dim), given.target.outputs, options)
    return Readout.of(head, given.target)


def joining(head: str, options: Mapping[str, Any], given: Given) -> Mapping[str, Any]:
    """The options, with the names of the images where the head joins modalities.

    Raises:
        ConfigError: names are given and no case has an image called so, or cases have others.
    """
    config = HEADS.config(head, options)
    if getattr(config, "fusion", "pooled") == "pooled":
        return options
    known = sorted(Seen.of(given.cases).images)
    if config.images and sorted(config.images) != known:
        named, there = ", ".join(config.images), ", ".join(known)
        raise ConfigError(f"head {head}: images {named}; those of the given cases are {there}")
    return {**options, "images": config.images or known}


Build = Callable[[Schedule, np.ndarray, int], Staged]
"""A new learner for a schedule and the cases it is trained on, from a seed."""


@dataclass(frozen=True)
class _Trained:
    """Fitted modules, and what they were fitted with."""

    modules: list[Any]
    offset: np.ndarray | None
    chosen: dict[str, Any]
    held_out: np.ndarray | None


def _trained(
    build: Build, given: Given, folds: Folds, plan: Plan, schedules: Sequence[Schedule], *, stop: bool
) -> _Trained:
    """Choose on the folds, then fit again as the ensemble asks."""
    objective = plan.objective(given)
    choice = choose_schedule(
        lambda schedule, rows: build(schedule, rows, plan.seed),
        objective,
        folds,
        schedules,
        plan.recipe,
        stop=stop,
        scored=plan.scored,
    )
    modules, report = _ensemble(build, objective, folds, plan, choice.schedule, choice.steps)
    cases = len(given.labels)
    chosen = {
        "steps": choice.steps,
        "epochs": math.ceil(choice.steps * min(plan.batch_size, cases) / cases),
        "schedule": str(choice.schedule),
        "held_out_loss": choice.held_out_loss,
        "held_out_curve": {"steps": list(choice.curve), "loss": list(choice.curve.values())},
        **report,
    }
    offset = None if objective.offset is None else objective.offset.numpy()
    return _Trained(modules, offset, chosen, scattered(choice.held_out, folds, cases))


def _ensemble(
    build: Build, objective: Objective, folds: Folds, plan: Plan, schedule: Schedule, steps: int
) -> tuple[list[Any], dict[str, Any]]:
    """The fitted modules, and what the steppers of the first fit report."""
    everything = np.arange(len(objective.labels))

    def fit(rows: np.ndarray, seed: int) -> tuple[Any, dict[str, Any]]:
        learner = build(schedule, rows, seed)
        report = fit_steps(learner, objective, rows, plan.recipe(schedule, seed), steps)
        return learner.module, {**report, **_of_sites(learner)}

    if plan.ensemble == "snapshots":
        learner, recipe = build(schedule, everything, plan.seed), plan.recipe(schedule)
        ends, kept = cycle_ends(learner, recipe), []

        def keep(done: int) -> None:
            if done in ends:
                kept.append(copy.deepcopy(learner.module))

        report = fit_steps(learner, objective, everything, recipe, schedule.steps, keep)
        return kept, {**report, **_of_sites(learner)}
    if plan.ensemble == "folds":
        found = [fit(train, plan.seed) for train, _ in required(folds)]
    else:
        count = plan.members if plan.ensemble == "seeds" else 1
        found = [fit(everything, plan.seed + _APART * number) for number in range(count)]
    return [module for module, _ in found], found[0][1]


def _of_sites(learner: Staged) -> dict[str, float]:
    """The distance of the sites in the last step, where they are aligned."""
    return {"distance_of_sites": learner.distance} if isinstance(learner, AlignedLearner) else {}


def required(folds: Folds) -> Folds:
    """The folds.

    Raises:
        DataError: there are none.
    """
    if not folds:
        raise DataError("an ensemble of folds needs folds: a class has a single subject, so none can be held out")
    return folds
