"""The page of an evaluation, collected from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from data_shards.support.documents import digest
from finetune.cases import Cases
from finetune.config import EvaluateConfig
from finetune.report.collect import arms_of, auc_differences, few_label_results, fit_curves, probe_results
from finetune.report.document import DataSet, ReportData
from finetune.report.groups import group_results
from finetune.study.arms import BASELINE, RECIPE, TANGENT
from finetune.study.compare import ComparisonRow
from finetune.study.constant import constant
from finetune.study.probing import EvaluationRow
from finetune.study.summary import remarks

_NOTES = {
    BASELINE: "MedMNIST's ResNet-18 for small images, from random weights, by the recipe of its authors",
    RECIPE: "every weight trained by the reference recipe, the epoch by the validation split or a carved part",
    TANGENT: "logistic regression on covariances of the tokens in their tangent space",
}


def evaluation_report(
    config: EvaluateConfig,
    models: Sequence[str],
    datasets: Mapping[str, DataSet],
    probes: Sequence[EvaluationRow],
    compared: Sequence[ComparisonRow],
    table: Sequence[Mapping[str, Any]] = (),
) -> ReportData:
    """Everything the page says. Scores of numbers, which have no AUC, are in the table alone.

    Args:
        config: of the evaluation.
        models: their names, as tables show them.
        datasets: what it is of, each by a sentence on what a constant answer scores.
        probes: rows of the probes.
        compared: rows of the comparison.
        table: rows of the tidy table, of which those of groups are shown.
    """
    classified = {dataset.name for dataset in datasets.values() if dataset.task != "regression"}
    few = [row for row in compared if row.dataset in classified]
    numbers = [f"{dataset.name} has numbers, of which results.csv tells." for dataset in datasets.values()
               if dataset.name not in classified]  # fmt: skip
    return ReportData(
        title=f"Evaluation of {', '.join(models)}",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seed=config.seeds[0],
        config_sha256=digest(config),
        code_version=version("medformer"),
        notes=(*datasets, *numbers, *remarks(few)),
        datasets=tuple(datasets.values()),
        arms={arm: _noted(arm, note) for arm, note in arms_of(few).items()},
        interval=f"95 % t interval over {len(config.seeds)} paired draws",
        few_label=few_label_results(few),
        differences=auc_differences(few),
        fits=fit_curves(few),
        probes=probe_results([row for row in probes if row.dataset in classified]),
        groups=group_results(table, classified),
    )


def trivial_words(train: Cases, test: Cases) -> str:
    """What a constant answer scores on the test split, in a sentence: accuracy, or of numbers mean absolute error."""
    target, said = test.target, constant(train, len(test))
    wanted, what = ("acc", "the commonest class") if target.classifies else ("mae", "the mean")
    metric = next(metric for metric in target.metrics if metric.name == wanted)
    value = float(metric.score(test.known_labels, said, test.task, None))
    return f"{test.name}: always saying {what} gives {metric.words} {value:.3f} on the test split."


def _noted(arm: str, note: str) -> str:
    return next((told for ending, told in _NOTES.items() if arm.endswith(ending)), note)
