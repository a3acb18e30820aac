"""Predictions as rows of a table, and applying a saved classifier or a backbone to new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.errors import CheckpointError, ConfigError, DataError
from data_shards.support.files import new_folder, refuse_existing, write_atomic
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier, FewLabelModel, FewLabelRegressor
from finetune.classifier.persistence import read_fitted_document
from finetune.classifier.predictor import Prediction
from finetune.classifier.threshold import OperatingPoint
from finetune.config import NewImagesConfig, PredictConfig
from finetune.instance_files import write_instances
from finetune.progress import counted
from finetune.readers import read_new
from finetune.scoring import Scores
from finetune.tables import as_csv, said_columns
from finetune.targets import Target
from pretrain.devices import check_device

_KINDS: dict[str, type[FewLabelModel]] = {
    "FewLabelClassifier": FewLabelClassifier,
    "FewLabelRegressor": FewLabelRegressor,
}


def open_classifier(folder: Path, device: str = "cpu") -> FewLabelModel:
    """A saved classifier or regressor, from its folder or from the folder that ``finetune`` wrote.

    Raises:
        CheckpointError: there is none, or it is damaged.
        ConfigError: the device is not there.
    """
    if not (folder / "classifier.json").is_file() and (folder / "classifier" / "classifier.json").is_file():
        folder = folder / "classifier"
    check_device(device)
    kind = read_fitted_document(folder).get("kind")
    if kind not in _KINDS:
        raise CheckpointError(f"{folder}: a fitted {kind}, which is not known; expected {' or '.join(_KINDS)}")
    return _KINDS[kind].load(folder, device)


def new_cases(config: NewImagesConfig, model: FewLabelModel, *, instead: str = "") -> Cases:
    """The images that a document names, read as those that the classifier was fitted on.

    Args:
        config: names them.
        model: :attr:`~finetune.config.NewImagesConfig.classifier`, opened.
        instead: ends the message where it cannot read files: what can be done with it.

    Raises:
        DataError: it was fitted to arrays; or the images cannot be used.
    """
    recipe = model.record_.recipe
    if recipe is None:
        raise DataError(
            f"{config.classifier}: it was fitted to arrays and does not know how files become images{instead}"
        )
    with counted("studies", "reading") as told:
        return read_new(
            config.data,
            recipe,
            csv=config.csv,
            split=config.split,
            missing=config.missing,
            show_paths=config.show_paths,
            on_error=config.on_error,
            progress=told,
        )


@dataclass(frozen=True)
class PredictResult:
    """What a prediction gave.

    Attributes:
        cases: what was predicted.
        prediction: what was said of them.
        coverage: stated coverage of its sets or intervals, in words; empty where there are none.
        scores: where the cases had labels.
        estimate: how good the classifier was said to be when it was made.
        fitted_on: how many of the cases have images that the classifier was fitted on.
    """

    cases: Cases
    prediction: Prediction
    coverage: str
    scores: Scores | None
    estimate: dict[str, Any]
    fitted_on: int = 0

    @property
    def estimated(self) -> list[str]:
        """The estimate in words, a sentence each; empty where ``finetune`` kept none."""
        return [line for kept in self.estimate.values() if isinstance(kept, dict) for line in kept.get("told", [])]


def predict(
    config: PredictConfig, classifier: Path, out: Path, *, overwrite: bool = False, instances: Path | None = None
) -> PredictResult:
    """Apply a saved classifier to new images and write a table.

    Args:
        config: what to do.
        classifier: ``config.classifier`` as a local folder.
        out: the CSV that appears: the key of each case, its label where there is one, what is predicted, probabilities,
            uncertainty, set or interval, whether it abstains, and of two classes the one at the threshold that goes
            with the estimate.
        overwrite: replace it.
        instances: a folder that appears with what is said of the studies or tokens of each case, see
            :func:`~finetune.instance_files.write_instances`; None for none.

    Raises:
        MedformerError: the classifier, the images or the file cannot be used; nothing is left behind.
    """
    if instances is not None:
        file, folder = out.absolute(), instances.absolute()
        if file == folder or file in folder.parents or folder in file.parents:
            raise ConfigError(f"{instances}: the folder of the instances and the table {out} need places of their own")
        refuse_existing(instances, overwrite=overwrite)
    refuse_existing(out, overwrite=overwrite, file=True)
    model = open_classifier(classifier, config.device)
    if instances is not None:
        model.predictor_.check_instances()
    cases = new_cases(config, model, instead="; give arrays to its predict_proba")
    predictor = model.predictor_
    prediction = predictor.predict(cases)
    scores = None
    if cases.labels is not None and cases.task is predictor.target.task:
        scores = Scores.of(cases, prediction.probabilities)
    rows = rows_of(cases, prediction.probabilities, prediction=prediction, target=predictor.target)
    if (point := _point(model.estimate_)) is not None:
        for row, (above,) in zip(rows, point.decide(prediction.probabilities), strict=True):
            row["at threshold"] = predictor.target.classes[int(above)]
    table = as_csv(rows)
    if instances is None:
        write_atomic(out, table)
    else:
        with new_folder(instances, overwrite=overwrite) as partial:
            write_instances(partial, cases, predictor.target, predictor.instances(cases))
            write_atomic(out, table)  # in here, so that no folder is left where there can be no table
    coverage = "" if predictor.conformal is None else predictor.conformal.told
    return PredictResult(cases, prediction, coverage, scores, dict(model.estimate_), predictor.seen.among(cases))


def _point(estimate: Mapping[str, Any]) -> OperatingPoint | None:
    """The threshold that goes with the sensitivity and specificity that are told of a classifier; of two classes."""
    kept = [
        each["operating_point"] for each in estimate.values() if isinstance(each, dict) and "operating_point" in each
    ]
    return OperatingPoint.from_state(kept[0]) if kept else None


def rows_of(
    cases: Cases,
    probabilities: np.ndarray,
    *,
    split: str | None = None,
    prediction: Prediction | None = None,
    target: Target | None = None,
) -> list[dict[str, Any]]:
    """One row per case.

    Args:
        cases: what was predicted.
        probabilities: ``(N, C)``.
        split: in a column of its own.
        prediction: uncertainty, sets and abstention, too.
        target: of the model; that of the cases when left out.
    """
    target = target or cases.target
    decided_NL = target.decide(probabilities)
    rows = []
    for place, key in enumerate(cases.keys.tolist()):
        row: dict[str, Any] = {"key": str(key)} | ({} if split is None else {"split": split})
        label_L = None if cases.labels is None else cases.labels[place]
        row |= _told(target, label_L, decided_NL[place])
        row |= said_columns(target, probabilities[place])
        if prediction is not None:
            row |= _certainty(target, prediction, place)
        rows.append(row)
    return rows


def columns_of(target: Target) -> list[str]:
    """The columns that every row of predictions with labels has, for a table without rows."""
    said_C = np.full(len(target.classes), 0.5)
    decided_L = target.decide(said_C[None])[0]
    return ["key", "split", *_told(target, decided_L, decided_L), *said_columns(target, said_C)]


def _told(target: Target, label_L: np.ndarray | None, decided_L: np.ndarray) -> dict[str, Any]:
    names = target.classes
    known: dict[str, Any]
    if not target.classifies:
        known = {} if label_L is None else {f"label: {n}": float(v) for n, v in zip(names, label_L, strict=True)}
        return known
    if len(decided_L) == 1:
        known = {} if label_L is None else {"label": names[int(label_L[0])]}
        return {**known, "predicted": names[int(decided_L[0])]}
    known = {} if label_L is None else {f"label: {n}": int(v) for n, v in zip(names, label_L, strict=True)}
    return {**known, "predicted": " ".join(n for n, v in zip(names, decided_L, strict=True) if v)}


def _certainty(target: Target, said: Prediction, place: int) -> dict[str, Any]:
    """Empty cells where nothing is known."""
    row: dict[str, Any] = {
        "uncertainty": _number(said.uncertainty, place),
        "disagreement": _number(said.disagreement, place),
    }
    if said.intervals is not None:
        for name, (low, high) in zip(target.classes, said.intervals[place], strict=True):
            row |= {f"from: {name}": float(low), f"to: {name}": float(high)}
    if said.sets is not None and said.abstains is not None:
        row["set"] = _set(target, said.sets[place])
        row["abstains"] = "yes" if said.abstains[place] else "no"
    return row


def _set(target: Target, kept: np.ndarray) -> str:
    """The classes that are left, or the labels that are certain and, with a question mark, open."""
    if kept.ndim == 1:
        return " | ".join(name for name, is_kept in zip(target.classes, kept, strict=True) if is_kept)
    marks = [name + "?" * bool(no) for name, (no, yes) in zip(target.classes, kept, strict=True) if yes]
    return " | ".join(marks)


def _number(values: np.ndarray | None, place: int) -> float | str:
    return "" if values is None else float(values[place])
