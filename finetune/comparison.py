"""The few-label comparison: what pretraining is worth, against the same network from scratch and against raw pixels.

Every arm gets the same labelled images, read from the same index file, and is scored once on the whole test split.
The val split is not touched: model selection happens within the given labels, for each arm by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.errors import ConfigError
from finetune.estimator import FewLabelClassifier
from finetune.evaluation import required_splits
from finetune.labelled import LabelledImages
from finetune.probes import linear_probe
from finetune.representations import Frozen, RawPixels, Representation
from finetune.scoring import Scores
from finetune.splits import selection_folds
from finetune.subsets import Budget, Subset, draw, load, save
from pretrain.backbone import Medformer

RAW = "raw pixels, linear"
RANDOM = "random network, frozen"
PRETRAINED = "pretrained, frozen"
SCRATCH = "from scratch, full"
FINETUNED = "pretrained, full"
ARMS = (RAW, RANDOM, PRETRAINED, SCRATCH, FINETUNED)

MINIMUM_SEEDS = 3

FreshNetwork = Callable[[int], Medformer]


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
        arm: one of :data:`ARMS`.
        selection: how hyper-parameters were chosen.
        chosen: hyper-parameters.
        scores: on the test split.
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

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**vars(self), "scores": self.scores.as_json()}


def compare(
    splits: Mapping[str, LabelledImages],
    backbone: Medformer,
    fresh: FreshNetwork,
    *,
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    folder: Path,
    arms: Sequence[str] = ARMS,
    options: Mapping[str, Any] | None = None,
) -> Iterator[ComparisonRow]:
    """Compare the arms on one dataset; yields a row as soon as it is there.

    Args:
        splits: ``train`` and ``test``.
        backbone: the pretrained network; it is not changed.
        fresh: makes the same network with new weights from a seed.
        budgets: how many labels.
        seeds: one draw, and one fresh network, for each; at least three.
        folder: where the index files are, or are written when they are not there yet.
        arms: which arms.
        options: parameters of :class:`~finetune.estimator.FewLabelClassifier` for the full arms.

    Raises:
        ConfigError: fewer than three seeds, or an arm that does not exist.
        DataError: a split is missing, or an index file is of other images or was changed.
    """
    if len(set(seeds)) < MINIMUM_SEEDS:
        raise ConfigError(f"a comparison needs at least {MINIMUM_SEEDS} different seeds, found {list(seeds)}")
    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"unknown arm {arm!r}; valid: {'; '.join(ARMS)}")
    pool, test = required_splits(splits)
    test_features: dict[str, np.ndarray] = {}
    for seed in seeds:
        random = fresh(seed)
        represent: dict[str, Representation] = {
            RAW: RawPixels(),
            RANDOM: Frozen(RANDOM, random),
            PRETRAINED: Frozen(PRETRAINED, backbone),
        }
        test_features.pop(RANDOM, None)
        for budget in budgets:
            subset = read_or_draw(pool, budget, seed, folder)
            given = subset.of(pool)
            for arm in arms:
                if arm in represent:
                    if arm not in test_features:
                        test_features[arm] = represent[arm](test)
                    yield _frozen_row(arm, given, test, subset, represent[arm](given), test_features[arm])
                else:
                    network = backbone if arm == FINETUNED else random
                    yield _full_row(arm, given, test, subset, network, options or {})


def read_or_draw(pool: LabelledImages, budget: Budget, seed: int, folder: Path) -> Subset:
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


def _frozen_row(
    arm: str,
    given: LabelledImages,
    test: LabelledImages,
    subset: Subset,
    given_features: np.ndarray,
    test_features: np.ndarray,
) -> ComparisonRow:
    folds = selection_folds(given.strata, subset.seed, given.subjects)
    probe = linear_probe(
        given_features,
        given.labels,
        test_features,
        given.task,
        classes=len(given.classes),
        folds=folds,
    )
    selection = f"held-out log loss in {len(folds)} folds of the given labels"
    return _row(arm, given, test, subset, selection, probe.chosen, probe.probabilities)


def _full_row(
    arm: str,
    given: LabelledImages,
    test: LabelledImages,
    subset: Subset,
    network: Medformer,
    options: Mapping[str, Any],
) -> ComparisonRow:
    classifier = FewLabelClassifier(
        network,
        strategy="full",
        task=given.task.name,
        organ=given.organ.name,
        modality=given.modality.name,
        seed=subset.seed,
        **options,
    )
    if arm == SCRATCH:
        # A module counts as pretrained; the first layers of this one have nothing to keep.
        classifier.set_params(layer_decay=1.0)
    classifier.fit(
        given.images,
        given.targets,
        given.subjects,
        spacing_mm=given.spacing_mm,
        index_sha256=subset.indices_sha256,
    )
    record = classifier.record_
    probabilities_NK = classifier.predict_proba(test.images, test.spacing_mm)
    return _row(arm, given, test, subset, record.selection, record.chosen, probabilities_NK)


def _row(
    arm: str,
    given: LabelledImages,
    test: LabelledImages,
    subset: Subset,
    selection: str,
    chosen: dict[str, Any],
    probabilities: np.ndarray,
) -> ComparisonRow:
    return ComparisonRow(
        dataset=given.name,
        official=given.official,
        note=given.note,
        budget=str(subset.budget),
        shortage=subset.shortage,
        seed=subset.seed,
        index_sha256=subset.indices_sha256,
        labelled_images=len(given),
        distinct_labelled_images=given.distinct_images(),
        arm=arm,
        selection=selection,
        chosen=copy.deepcopy(chosen),
        scores=Scores.of(test, probabilities, seed=subset.seed),
    )
