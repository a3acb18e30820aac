"""How good representations are with all labels of a dataset: kNN and linear probe of each, on the test split."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.scoring import Scores
from finetune.splits import selection_folds
from finetune.study.probes import DEFAULT_K, Probe, knn_probe, linear_probe
from finetune.study.representations import Representation


@dataclass(frozen=True)
class EvaluationRow:
    """One probe of one representation on one dataset.

    Attributes:
        dataset: its name.
        official: whether it is the published one.
        note: why not.
        representation: what the images were turned into.
        probe: ``knn`` or ``linear``.
        seed: of the random network, the splits and the bootstrap.
        labelled_images: training images whose labels were used to fit.
        selection: where hyper-parameters were chosen.
        chosen: hyper-parameters.
        scores: on the test split, which was predicted once for this row.
        model: name of the network; ``raw pixels`` where there is none.
        weights: ``pretrained``, ``random`` or ``none``.
        distinct_labelled_images: different ones among the labelled.
        probabilities: what was predicted, ``(N, C)``; not a part of :meth:`as_json`.
    """

    dataset: str
    official: bool
    note: str
    representation: str
    probe: str
    seed: int
    labelled_images: int
    selection: str
    chosen: dict[str, Any]
    scores: Scores
    model: str = ""
    weights: str = "none"
    distinct_labelled_images: int = 0
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain = {name: value for name, value in vars(self).items() if name != "probabilities"}
        return {**plain, "scores": self.scores.as_json()}


def evaluate(
    splits: Mapping[str, Cases],
    representations: Sequence[Representation],
    *,
    seed: int = 0,
    k: int = DEFAULT_K,
) -> Iterator[EvaluationRow]:
    """Probe representations on one dataset; yields two rows for each.

    The strength of the linear probe is chosen on the validation split when there is one, else within the training
    split; the final fit is on the training split.

    Args:
        splits: ``train`` and ``test``, and ``val`` where there is one.
        representations: what to probe.
        seed: of the splits and the bootstrap.
        k: neighbours.

    Raises:
        DataError: a split is missing, or a class has no training image.
    """
    train, test = required_splits(splits)
    val, target, labels = splits.get("val"), train.target, train.known_labels
    distinct = train.distinct_images()
    for represent in representations:
        train_features, test_features = represent(train), represent(test)
        knn = knn_probe(train_features, labels, test_features, target, k=k)
        yield _row(train, test, represent, "knn", knn, "k is fixed", seed, distinct)
        if val is not None:
            rows = np.arange(len(train))
            linear = linear_probe(
                np.concatenate([train_features, represent(val)]),
                np.concatenate([labels, val.known_labels]),
                test_features,
                target,
                folds=[(rows, len(train) + np.arange(len(val)))],
                refit=rows,
            )
        else:
            folds = selection_folds(train.strata, seed, train.subjects)
            linear = linear_probe(train_features, labels, test_features, target, folds=folds)
        chosen_on = "train" if val is None else ", where ".join(filter(None, ("val", " and ".join(val.lacking))))
        yield _row(train, test, represent, "linear", linear, chosen_on, seed, distinct)


def required_splits(splits: Mapping[str, Cases]) -> tuple[Cases, Cases]:
    """The training and the test split.

    Raises:
        DataError: one is missing, or a class has no training image.
    """
    check_splits(splits, next(iter(splits.values())).name if splits else "the dataset")
    require_all_classes(splits["train"])
    return splits["train"], splits["test"]


def check_splits(splits: Container[str], name: str) -> None:
    """Refuse a dataset without a training or a test split.

    Args:
        splits: their names.
        name: of the dataset, for the message.

    Raises:
        DataError: names the one that is missing.
    """
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(
                f"{name}: there is no {split} split; a table says it in a column split, folders by their names"
            )


def require_all_classes(train: Cases) -> None:
    """Refuse a training split in which a class has no image.

    Raises:
        DataError: names the classes.
    """
    if train.absent:
        names = ", ".join(map(repr, train.absent))
        raise DataError(f"{train.name}: class {names} has no image in the train split")


def _row(
    train: Cases,
    test: Cases,
    represent: Representation,
    probe: str,
    result: Probe,
    selection: str,
    seed: int,
    distinct: int,
) -> EvaluationRow:
    return EvaluationRow(
        dataset=train.name,
        official=train.official,
        note=train.note,
        representation=represent.name,
        probe=probe,
        seed=seed,
        labelled_images=len(train),
        selection=selection,
        chosen=result.chosen,
        scores=Scores.of(test, result.probabilities, seed=seed),
        model=represent.model,
        weights=represent.weights,
        distinct_labelled_images=distinct,
        probabilities=result.probabilities,
    )
