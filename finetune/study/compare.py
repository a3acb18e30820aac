"""The few-label comparison: what pretraining is worth, against the same network from scratch and against raw pixels.

Every arm gets the same labelled images, read from the same index file, and is scored once on the whole test split.
The val split is not touched: model selection happens within the given labels, for each arm by itself. The exception is
the reference recipe where all labels of the training split are given: it chooses its epoch on the val split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.errors import ConfigError
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.reference.fit import fit_reference
from finetune.reference.recipe import axes_of, recipe_for
from finetune.scoring import Scores
from finetune.splits import carved
from finetune.study.arms import RAW, Arm
from finetune.study.probing import required_splits
from finetune.subsets import Budget, Subset, draw, load, save
from pretrain.backbone import Backbone

MINIMUM_SEEDS = 3

FreshNetwork = Callable[[int], Backbone]


@dataclass(frozen=True)
class ComparisonRow:
    """One arm on one subset.

    Attributes:
        dataset: its name.
        official: whether it is the published one.
        note: why not.
        budget: labels allowed, in words.
        shortage: what the data do not have of them, in words; empty when the budget is there.
        seed: of the draw, of fresh weights, of splits and batches.
        index_sha256: of the index file; equal for all arms of a draw.
        labelled_images: given to the arm.
        distinct_labelled_images: different images among them; no other labelled image was seen.
        arm: its name.
        selection: how hyper-parameters were chosen.
        chosen: hyper-parameters.
        scores: on the test split.
        probabilities: what was predicted there, ``(N, C)``; not a part of :meth:`as_json`.
    """

    dataset: str
    official: bool
    note: str
    budget: str
    shortage: str
    seed: int
    index_sha256: str
    labelled_images: int
    distinct_labelled_images: int
    arm: str
    selection: str
    chosen: dict[str, Any]
    scores: Scores
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = {name: value for name, value in vars(self).items() if name != "probabilities"}
        return {**plain, "scores": self.scores.as_json()}


@dataclass(frozen=True)
class Pretrained:
    """A pretrained network, and what makes the same one with new weights from a seed.

    Attributes:
        backbone: None for a network of which there are no weights: its arms are those of the fresh one.
        fresh: makes that.
        window: voxels of the windows in which it reads larger images where it is frozen, fresh or not; None reads them
            whole.
        overlap: of neighbouring windows, as a fraction of their sides.
    """

    backbone: Backbone | None
    fresh: FreshNetwork
    window: tuple[int, ...] | None = None
    overlap: float = 0.5


def compare(
    splits: Mapping[str, Cases],
    models: Mapping[str, Pretrained],
    arms: Sequence[Arm],
    *,
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    folder: Path,
    device: str = "cpu",
) -> Iterator[ComparisonRow]:
    """Compare arms on one dataset; yields a row as soon as it is there.

    Args:
        splits: ``train`` and ``test``, and ``val`` where there is one.
        models: the pretrained networks by name; they are not changed.
        arms: which.
        budgets: how many labels.
        seeds: one draw, and one fresh network, for each; at least three.
        folder: where the index files are, or are written when they are not there yet.
        device: where the networks run.

    Raises:
        ConfigError: fewer than three seeds, or an arm of a model that is not there.
        DataError: a split is missing, or an index file is of other images or was changed.
    """
    check_seeds(seeds)
    for arm in arms:
        if arm.model not in models and arm.name != RAW:
            raise ConfigError(f"arm {arm.name!r} is of model {arm.model!r}, which is none of {', '.join(models)}")
    pool, test = required_splits(splits)
    shared, test = pool.shared(), test.shared()
    for seed in seeds:
        fresh: dict[str, Backbone] = {}
        for budget in budgets:
            subset = read_or_draw(pool, budget, seed, folder)
            given = shared.select(subset.positions)
            for arm in arms:
                model = models[arm.model] if arm.name != RAW else next(iter(models.values()))
                if arm.weights == "random" and arm.model not in fresh:
                    fresh[arm.model] = model.fresh(seed)
                network = model.backbone if arm.weights == "pretrained" else fresh[arm.model]
                assert network is not None, f"arm {arm.name} is of a network without weights"
                if arm.epochs:
                    val = _val(splits, given, pool)
                    done = _by_recipe(arm, given, val, test, subset, network, device)
                else:
                    done = _by_estimator(arm, given, test, subset, network, model, device)
                yield _row(arm, given, test, subset, done)
        # What was computed by fresh networks of this seed is of no use to the next one.
        for pictures in (shared.pictures, test.pictures):
            for key in [key for key in pictures.memo if key[0] == "summaries"]:
                del pictures.memo[key]


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse fewer draws than show any spread.

    Raises:
        ConfigError: fewer than three different seeds.
    """
    if len(set(seeds)) < MINIMUM_SEEDS:
        raise ConfigError(f"a comparison needs at least {MINIMUM_SEEDS} different seeds, found {list(seeds)}")


def read_or_draw(pool: Cases, budget: Budget, seed: int, folder: Path) -> Subset:
    """The index file of a draw; it is drawn and written the first time.

    Raises:
        DataError: the file was changed, or is of other images.
    """
    path = folder / f"{pool.name}-{str(budget).replace(' ', '-').replace('%', 'percent')}-seed{seed}.json"
    if not path.exists():
        save(draw(pool, budget, seed), path)
    subset = load(path)
    subset.of(pool)
    return subset


def _val(splits: Mapping[str, Cases], given: Cases, pool: Cases) -> Cases | None:
    """The val split, whose labels are beyond any budget that is less than all."""
    return splits.get("val") if len(given) == len(pool) else None


@dataclass(frozen=True)
class _Done:
    """What a fit gave."""

    distinct: int
    selection: str
    chosen: dict[str, Any]
    probabilities: np.ndarray


def _by_recipe(
    arm: Arm, given: Cases, val: Cases | None, test: Cases, subset: Subset, network: Backbone, device: str
) -> _Done:
    """The reference recipe; without a val split the epoch is chosen on a part that is carved from the given labels."""
    recipe = recipe_for(given.name, axes_of(given), arm.epochs)
    train, where = given, "the val split"
    if val is None:
        where = "a carved part of the given labels"
        for rows, held in carved(given.strata, subset.seed, given.subjects):
            train, val = given[rows], given[held]
    fitted = fit_reference(network, train, val, recipe, seed=subset.seed, device=device)
    chosen = {"epoch": fitted.epoch, "recipe": recipe.words, "trained_on": len(train)}
    return _Done(given.distinct_images(), fitted.selection(where), chosen, fitted.probabilities(test))


def _by_estimator(
    arm: Arm, given: Cases, test: Cases, subset: Subset, network: Backbone, model: Pretrained, device: str
) -> _Done:
    kind = FewLabelClassifier if given.target.classifies else FewLabelRegressor
    params = dict(arm.params)
    if arm.weights == "random":
        # A module counts as pretrained; the first layers of this one have nothing to keep.
        params.setdefault("layer_decay", 1.0)
    if arm.name != RAW and params.get("strategy", "frozen") == "frozen":
        params |= {"window": model.window, "overlap": model.overlap}
    estimator = kind(network, seed=subset.seed, device=device, **params)
    estimator.fit(given, index_sha256=subset.indices_sha256)
    record = estimator.record_
    said = estimator.predictor_.predict_proba(test)
    return _Done(record.distinct_labelled_images, record.selection, copy.deepcopy(record.chosen), said)


def _row(arm: Arm, given: Cases, test: Cases, subset: Subset, done: _Done) -> ComparisonRow:
    return ComparisonRow(
        dataset=given.name,
        official=given.official,
        note=given.note,
        budget=str(subset.budget),
        shortage=subset.shortage,
        seed=subset.seed,
        index_sha256=subset.indices_sha256,
        labelled_images=len(given),
        distinct_labelled_images=done.distinct,
        arm=arm.name,
        selection=done.selection,
        chosen=done.chosen,
        scores=Scores.of(test, done.probabilities, seed=subset.seed),
        probabilities=done.probabilities,
    )
