"""From the rows of a comparison and an evaluation to the parts of a report."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence

import numpy as np

from finetune.cases import Cases
from finetune.report.document import (
    Confusion,
    Curve,
    DataSet,
    Difference,
    Embedding,
    Estimate,
    FewLabelResult,
    FitCurves,
    ProbeResult,
    Sample,
)
from finetune.report.pictures import picture_of
from finetune.report.projection import principal_plane
from finetune.scores.bootstrap import Interval
from finetune.study.arms import FINETUNED, PRETRAINED, RANDOM, RAW, SCRATCH
from finetune.study.compare import ComparisonRow
from finetune.study.probing import EvaluationRow
from finetune.study.summary import summarise

ARM_NOTES = {
    RAW: "a linear classifier on the intensities themselves",
    RANDOM: "a linear classifier on the untrained network; what it reads is chosen within the labels",
    PRETRAINED: "a linear classifier on the pretrained network; what it reads is chosen within the labels",
    SCRATCH: "the same network from random weights, every weight trained on the given labels",
    FINETUNED: "the pretrained network, every weight trained on the given labels",
}


def data_set(splits: Mapping[str, Cases], title: str, licence: str) -> DataSet:
    """The entry of a data set, from its splits."""
    first = next(iter(splits.values()))
    return DataSet(
        name=first.name,
        title=title,
        official=first.official,
        note=first.note,
        licence=licence,
        task=first.task.name,
        classes=tuple(first.classes[index] for index in sorted(first.classes)),
        images={split: len(cases) for split, cases in splits.items()},
        checksum="; ".join(f"{name} {digest}" for name, digest in first.source.items()),
    )


def arms_of(rows: Sequence[ComparisonRow]) -> dict[str, str]:
    """The arms that occur, with what each of them is; those of :data:`ARM_NOTES` first, in its order."""
    used = dict.fromkeys(row.arm for row in rows)
    noted = {arm: note for arm, note in ARM_NOTES.items() if arm in used}
    return noted | {arm: "as its name says" for arm in used if arm not in noted}


def few_label_results(rows: Sequence[ComparisonRow]) -> tuple[FewLabelResult, ...]:
    """One result for each data set, budget and arm, with the seeds in the order of the rows.

    Of budgets that come to the same labels, since there are no more, the first stands for all.
    """
    groups: dict[tuple[str, int, str], list[ComparisonRow]] = {}
    for row in _without_repeats(rows):
        groups.setdefault((row.dataset, _labels_given(rows, row.dataset, row.budget), row.arm), []).append(row)
    return tuple(
        FewLabelResult(
            dataset=dataset,
            budget=budget,
            arm=arm,
            seeds=tuple(row.seed for row in members),
            auc=tuple(_defined(row.scores.auc.estimate) for row in members),
            accuracy=tuple(row.scores.acc.estimate for row in members),
            balanced_accuracy=tuple(row.scores.balanced_acc.estimate for row in members),
            index_sha256=tuple(row.index_sha256 for row in members),
            distinct_labelled=tuple(row.distinct_labelled_images for row in members),
        )
        for (dataset, budget, arm), members in groups.items()
    )


def auc_differences(rows: Sequence[ComparisonRow]) -> tuple[Difference, ...]:
    """The paired differences in AUC, where it is defined, with their t intervals over seeds."""
    return tuple(
        Difference(
            dataset=pair.dataset,
            budget=_labels_given(rows, pair.dataset, pair.budget),
            arm=pair.arm,
            baseline=pair.baseline,
            mean=pair.over_seeds.mean,
            low=_defined(pair.over_seeds.low),
            high=_defined(pair.over_seeds.high),
        )
        for pair in summarise(_without_repeats(rows)).pairs
        if pair.metric == "auc" and not math.isnan(pair.over_seeds.mean)
    )


CURVES = {
    "batch_size": ("batch size", "cases"),
    "selected": ("chosen of a batch, median", "cases"),
    "distinct": ("different cases drawn so far", "cases"),
    "margin_loss": ("margin loss, median", "log odds"),
}
"""Names and units of what steppers that change their batches log by epoch."""


def fit_curves(rows: Sequence[ComparisonRow]) -> tuple[FitCurves, ...]:
    """The curves of every fit whose stepper chose its batches."""
    found = []
    for row in _without_repeats(rows):
        logged = dict(row.chosen.get("batches") or {})
        steps = tuple(logged.pop("steps", ()))
        if not steps:
            continue
        curves = [
            Curve(name=name, unit=unit, steps=steps, values=tuple(logged[key]))
            for key, (name, unit) in CURVES.items()
            if key in logged
        ]
        caption = f"{row.arm}, {row.labelled_images} labels, seed {row.seed}"
        found.append(
            FitCurves(
                dataset=row.dataset,
                caption=caption,
                given=row.labelled_images,
                seen=row.chosen["distinct_seen"],
                curves=tuple(curves),
            )
        )
    return tuple(found)


def probe_results(rows: Sequence[EvaluationRow]) -> tuple[ProbeResult, ...]:
    """One result for each probe of an evaluation."""
    return tuple(
        ProbeResult(
            dataset=row.dataset,
            probe=row.probe,
            features=row.representation,
            labels=row.labelled_images,
            auc=_estimate(row.scores.auc),
            accuracy=_estimate(row.scores.acc),
            balanced_accuracy=_estimate(row.scores.balanced_acc),
        )
        for row in rows
    )


def confusion_of(row: ComparisonRow) -> Confusion:
    """The confusion matrix of one arm on one draw of labels; for tasks with one label per image."""
    caption = f"{row.arm}, {row.labelled_images} labels, seed {row.seed}"
    counts = tuple(tuple(int(count) for count in line) for line in row.scores.confusion or ())
    return Confusion(dataset=row.dataset, caption=caption, counts=counts)


def embedding_of(images: Cases, embeddings_ND: np.ndarray, caption: str) -> Embedding:
    """The embedding plane of images with one label each."""
    points_N2, explained = principal_plane(embeddings_ND)
    return Embedding(
        dataset=images.name,
        caption=caption,
        points=tuple((float(x), float(y)) for x, y in points_N2),
        labels=tuple(int(label) for label in images.known_labels[:, 0]),
        explained=explained,
    )


def samples_of(cases: Cases, most: int = 4) -> tuple[Sample, ...]:
    """The first image of each class; for images that anyone may see.

    Args:
        cases: with one label each.
        most: how many classes.
    """
    found = []
    for index in sorted(cases.classes)[:most]:
        mine = np.flatnonzero(cases.target.carried(cases.known_labels)[:, index])
        if not len(mine):
            continue
        told = cases.classes[index]
        picture = picture_of(cases.studies_of(int(mine[0]))[0], told)
        content = base64.b64encode(picture.content).decode()
        found.append(
            Sample(
                dataset=cases.name, told=told, image=content,
                width=picture.width, height=picture.height, slices=picture.slices,
            )
        )  # fmt: skip
    return tuple(found)


def _labels_given(rows: Sequence[ComparisonRow], dataset: str, budget: str) -> int:
    """A budget in words as the number of labelled images it came to (the most, where draws differ)."""
    return max(row.labelled_images for row in rows if (row.dataset, row.budget) == (dataset, budget))


def _without_repeats(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    first: dict[tuple[str, str, int, str], ComparisonRow] = {}
    for row in rows:
        first.setdefault((row.dataset, row.arm, row.seed, row.index_sha256), row)
    return list(first.values())


def _estimate(interval: Interval) -> Estimate:
    return Estimate(value=_defined(interval.estimate), low=_defined(interval.low), high=_defined(interval.high))


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
