"""How good a classifier made like this one is on new subjects: a test split, or repeated cross-validation.

A quarter of a few labels set aside is a few labels short and says next to nothing: five images, all right, are "AUC
1.000". So where no test split is given, every case is predicted by a model that was fitted, with all its choices, on
the others of a fold: nested, because what is chosen on the cases that are scored looks better than it is (Varma and
Simon, BMC Bioinformatics 7, 2006). The final model is fitted on all cases; what is estimated is how well the way of
making it does on a little fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelModel
from finetune.classifier.predictor import Prediction
from finetune.classifier.seen import Seen
from finetune.classifier.site import Site
from finetune.classifier.threshold import OperatingPoint, operating_point, sensitivity_specificity
from finetune.classifier.unlabelled import apart
from finetune.progress import progress, within
from finetune.scores.bootstrap import Interval
from finetune.scoring import Scores
from finetune.splits import smallest_class, stratified_folds

FOLDS = 5
REPEATS = 3


@dataclass(frozen=True)
class Estimate:
    """Scores of predictions of cases that the models did not see.

    Attributes:
        how: in words.
        scores: with intervals over subjects.
        probabilities: ``(R, N, C)``: of each repeat; one for a test split.
        by_repeat: the deciding metric of each repeat: how much the cut into folds matters.
        point: threshold of the final model; of a binary target, where one could be chosen.
        sensitivity: of the second class at thresholds that were chosen within the labels of each fit; None elsewhere.
        specificity: likewise.
        positive: name of the second class, of a binary target.
        decided: whether each case is above the threshold, bool ``(N,)``: that of the final model on a split that was
            set aside, those of the fits of the first repeat in a cross-validation; None where there is none.
        prediction: everything that the final model says of a split that was set aside; None for a cross-validation.
    """

    how: str
    scores: Scores
    probabilities: np.ndarray
    by_repeat: tuple[float, ...] = ()
    point: OperatingPoint | None = None
    sensitivity: Interval | None = None
    specificity: Interval | None = None
    positive: str = ""
    decided: np.ndarray | None = None
    prediction: Prediction | None = None

    @property
    def told(self) -> list[str]:
        """A few sentences, one for each line."""
        lines = [f"{self.how}: {self.scores.told}"]
        if len(self.by_repeat) > 1:
            name = self.scores.kinds[0].words
            low, high = min(self.by_repeat), max(self.by_repeat)
            lines.append(f"The {name} of single repeats runs from {low:.3f} to {high:.3f}.")
        if self.sensitivity is not None and self.specificity is not None and self.point is not None:
            lines.append(
                f"At thresholds chosen within the labels (p({self.positive}) above {self.point.threshold:.3f} for the "
                f"final classifier) sensitivity for {self.positive!r} is {_told(self.sensitivity)} and specificity "
                f"{_told(self.specificity)}."
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types, without the predictions."""
        deciding = self.scores.kinds[0]
        found: dict[str, Any] = {
            "how": self.how,
            "metric": deciding.name,
            "told": self.told,
            "scores": self.scores.as_json(),
            "by_repeat": list(self.by_repeat),
        }
        if self.point is not None:
            found["operating_point"] = self.point.state()
        for name in ("sensitivity", "specificity"):
            interval = getattr(self, name)
            if interval is not None:
                found[name] = vars(interval)
        return found


@dataclass
class _Points:
    """Decisions at thresholds that were chosen within the labels of each fit."""

    decided: np.ndarray
    known: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.known = np.zeros(len(self.decided), bool)


def scored_on(model: FewLabelModel, test: Cases, *, seed: int, name: str = "test") -> Estimate:
    """The estimate on cases that were set aside.

    Args:
        model: fitted without them.
        test: labelled cases.
        seed: of the bootstrap.
        name: of the split.
    """
    prediction = model.predictor_.predict(test)
    said = prediction.probabilities
    scores = Scores.of(test, said, seed=seed)
    point = chosen_point(model)
    estimate = Estimate(f"{name} split", scores, said[None], point=point, prediction=prediction)
    if point is None:
        return estimate
    estimate = replace(estimate, decided=said[:, 1] > point.threshold)
    if len(test.absent):
        return estimate
    found = sensitivity_specificity(test.known_labels, said, point.threshold, seed=seed, subjects=test.subjects)
    return replace(estimate, sensitivity=found[0], specificity=found[1], positive=test.target.classes[1])


def cross_validated(
    model: FewLabelModel,
    cases: Cases,
    *,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
    unlabelled: Cases | None = None,
    target_data: Site | None = None,
) -> Estimate:
    """Repeated, stratified cross-validation by subjects; every choice is made anew within each fold.

    Args:
        model: fitted on all cases, for the threshold it will be used with and what images it knows; its clones are
            fitted.
        cases: labelled.
        folds: of each repeat; fewer where a class has fewer subjects.
        repeats: how often the cases are cut anew.
        seed: of the cuts.
        unlabelled: learned from in every fold, without those that are among ``cases`` or of their subjects: each of
            these is held out once.
        target_data: cases of the target site, in every fold likewise; those with labels are learned from, not scored.

    Raises:
        DataError: a class has a single subject, so that no model can be fitted without it.
    """
    labels, target = cases.known_labels, cases.target
    folds = min(folds, smallest_class(cases.strata, cases.subjects))
    if folds < 2:
        raise DataError(
            f"{cases.name}: a class has a single subject; an estimate needs two in every class, better fifteen"
        )
    if unlabelled is not None:
        unlabelled, _ = apart(unlabelled, [cases])
    if target_data is not None:
        target_data, _ = target_data.apart([cases])
    said = np.full((repeats, len(cases), len(target.classes)), np.nan)
    points = _Points(np.zeros(len(cases)))
    with progress(repeats * folds, "fits", "cross-validation") as shown:
        for repeat in range(repeats):
            fold_N = stratified_folds(cases.strata, folds, seed + repeat, cases.subjects)
            for fold in range(int(fold_N.max()) + 1):
                train, held = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
                with within(shown):
                    fitted = clone(model).set_params(seed=model.seed + repeat)
                    fitted.fit(cases[train], unlabelled=unlabelled, target_data=target_data)
                    said[repeat, held] = _columns(fitted, cases, held, len(target.classes), model.predictor_.seen)
                point = chosen_point(fitted) if repeat == 0 else None
                if point is not None:
                    points.decided[held] = said[0, held, 1] > point.threshold
                    points.known[held] = True
                shown.advance(1)
    scores = Scores.of(cases, said, seed=seed)
    kind = scores.kinds[0]
    by_repeat = tuple(float(kind.score(labels, each, cases.task, None)) for each in said)
    how = (
        f"{folds}-fold cross-validation by subject" if cases.subjects is not None else f"{folds}-fold cross-validation"
    )
    how += f", repeated {repeats} times" if repeats > 1 else ""
    point = chosen_point(model)
    if point is None or not points.known.all():
        return Estimate(how, scores, said, by_repeat, point)
    decisions = np.stack([1 - points.decided, points.decided], axis=1)
    found = sensitivity_specificity(labels, decisions, 0.5, seed=seed, subjects=cases.subjects)
    return Estimate(how, scores, said, by_repeat, point, *found, target.classes[1], points.decided > 0)


def chosen_point(model: FewLabelModel) -> OperatingPoint | None:
    """The threshold of a fitted binary classifier, chosen on held-out labels; None where there are none of a class."""
    held_out, predictor = model.held_out_, model.predictor_
    if held_out is None or predictor.target.task.name != "binary" or model.labels_ is None:
        return None
    known = np.isfinite(held_out).all(axis=1)
    labels = model.labels_[known]
    if len(np.unique(labels)) < 2:
        return None
    return operating_point(labels, held_out[known])


def _columns(fitted: FewLabelModel, cases: Cases, held: np.ndarray, count: int, seen: Seen) -> np.ndarray:
    # A fold without the one black image there is would refuse it as unlike all; the final classifier knows it.
    predictor = replace(fitted.predictor_, seen=seen)
    said = predictor.predict_proba(cases[held])
    if said.shape[1] != count:
        raise DataError(f"{cases.name}: a fold lacks a class; give more cases of it, or leave it out")
    return said


def _told(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{interval.estimate:.2f} (no interval)"
    return f"{interval.estimate:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def as_fitted(estimate: Estimate | None) -> Mapping[str, Any]:
    """What is kept with a saved classifier."""
    return {} if estimate is None else estimate.as_json()
