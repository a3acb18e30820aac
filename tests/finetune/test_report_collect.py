from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from pydantic import ValidationError

from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.report import collect
from finetune.report.document import ReportData
from finetune.report.page import render_page
from finetune.report.terminal import render_terminal
from finetune.scoring import Scores
from finetune.study.arms import FINETUNED, SCRATCH
from finetune.study.compare import ComparisonRow
from finetune.study.probing import EvaluationRow
from finetune.study.summary import remarks

SEEDS = (0, 1, 2)
BUDGETS = {"5 per class": 10, "20 per class": 40}


def scores(rng: np.random.Generator, skill: float) -> Scores:
    labels = np.repeat([0, 1], 20)[:, None]
    second = (rng.normal(labels[:, 0] * skill, 1.0) + 3) / 6
    probabilities = np.clip(np.stack([1 - second, second], 1), 0.01, 0.99)
    images = Cases("toy", np.zeros((40, 1, 8, 8), np.uint8), labels, Task.binary, {0: "well", 1: "ill"}, np.arange(40))
    return Scores.of(images, probabilities, replicates=50)


@pytest.fixture(scope="module")
def rows() -> list[ComparisonRow]:
    rng = np.random.default_rng(0)
    return [
        ComparisonRow(
            dataset="toy", official=False, note="made up", budget=budget, shortage="", seed=seed,
            index_sha256=f"{seed}{labels:02}" * 16,
            labelled_images=labels, distinct_labelled_images=labels, arm=arm, selection="none", chosen={},
            scores=scores(rng, skill),
        )
        for budget, labels in BUDGETS.items()
        for seed in SEEDS
        for arm, skill in ((SCRATCH, 0.5), (FINETUNED, 1.5))
    ]  # fmt: skip


def test_fits_that_chose_their_batches_are_drawn_with_how_many_cases_they_saw(
    rows: list[ComparisonRow], toy: Cases
) -> None:
    assert collect.fit_curves(rows) == ()
    logged = {
        "steps": [2, 4],
        "batch_size": [8, 10],
        "selected": [4, 9.5],
        "distinct": [8, 10],
        "margin_loss": [1, 0.5],
    }
    adaptive = replace(rows[0], chosen={"batches": logged, "distinct_seen": 10, "distinct_chosen": 9})
    data = ReportData(
        title="t", created="now", seed=0, config_sha256="0", code_version="0",
        datasets=(collect.data_set({"train": toy}, "toy", "none"),), arms=collect.arms_of(rows),
        fits=collect.fit_curves([adaptive, *rows[1:]]),
    )  # fmt: skip
    (fit,) = data.fits
    assert [(curve.name, curve.values) for curve in fit.curves][:2] == [
        ("batch size", (8, 10)), ("chosen of a batch, median", (4, 9.5)),
    ]  # fmt: skip
    page = render_page(data)
    assert "Batches that fits chose" in page and "10 different labelled cases of 10 given were drawn" in page
    assert page.count("<figure>") == 4 and "margin loss, median" in page
    with pytest.raises(ValidationError, match="11 different cases were seen of 10 given"):
        collect.fit_curves([replace(adaptive, chosen={"batches": logged, "distinct_seen": 11})])


@pytest.fixture(scope="module")
def toy() -> Cases:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    labels = np.array([[0], [1], [1], [0]])
    keys = np.array(["a", "b", "c", "d"])
    names = {1: "ill", 0: "well"}
    return Cases("toy", images, labels, Task.binary, names, keys, official=False, note="made up")


def test_every_row_of_a_comparison_reaches_the_report(rows: list[ComparisonRow]) -> None:
    results = collect.few_label_results(rows)
    assert {(r.budget, r.arm) for r in results} == {(n, arm) for n in BUDGETS.values() for arm in (SCRATCH, FINETUNED)}
    for result in results:
        own = [row for row in rows if (row.labelled_images, row.arm) == (result.budget, result.arm)]
        assert result.seeds == SEEDS
        assert result.auc == tuple(row.scores.auc.estimate for row in own)
        assert result.index_sha256 == tuple(row.index_sha256 for row in own)


def test_the_differences_are_paired_means_in_auc(rows: list[ComparisonRow]) -> None:
    (first, second) = collect.auc_differences(rows)
    auc = {(row.labelled_images, row.arm, row.seed): row.scores.auc.estimate for row in rows}
    for gap, labels in ((first, 10), (second, 40)):
        gains = [auc[labels, FINETUNED, seed] - auc[labels, SCRATCH, seed] for seed in SEEDS]
        assert (gap.budget, gap.arm, gap.baseline) == (labels, FINETUNED, SCRATCH)
        assert gap.mean == pytest.approx(fmean(gains))
        assert gap.low < gap.mean < gap.high


def test_budgets_that_come_to_the_same_labels_are_shown_once(rows: list[ComparisonRow]) -> None:
    more = [replace(row, budget="900 per class", shortage="no more") for row in rows if row.budget == "20 per class"]
    assert collect.few_label_results([*rows, *more]) == collect.few_label_results(rows)
    assert collect.auc_differences([*rows, *more]) == collect.auc_differences(rows)


def test_seeds_without_spread_and_an_undefined_auc_make_a_page(rows: list[ComparisonRow], toy: Cases) -> None:
    first = {arm: next(row for row in rows if row.arm == arm) for arm in (SCRATCH, FINETUNED)}
    alike = [replace(row, seed=seed) for row in first.values() for seed in SEEDS]
    (gap,) = collect.auc_differences(alike)
    assert (gap.low, gap.high) == (None, None)
    one_class = toy.select(np.array([1, 2]))
    undefined = Scores.of(one_class, np.full((2, 2), 0.5))
    lacking = [replace(row, dataset="half", scores=undefined) for row in alike]
    half = replace(one_class, name="half")
    evaluation = EvaluationRow("half", False, "made up", "raw pixels", "knn", 0, 4, "none", {}, undefined)
    report = ReportData(
        title="toy", created="now", seed=0, config_sha256="0", code_version="0",
        datasets=tuple(collect.data_set({"train": each, "test": each}, "toys", "CC0") for each in (toy, half)),
        arms=collect.arms_of(alike),
        few_label=collect.few_label_results([*alike, *lacking]),
        differences=collect.auc_differences([*alike, *lacking]),
        probes=collect.probe_results([evaluation]),
        notes=tuple(remarks([*alike, *lacking])),
    )  # fmt: skip
    assert [gap.dataset for gap in report.differences] == ["toy"]
    for text in (render_page(report), render_terminal(report)):
        assert "no spread over seeds" in text and "undefined" in text and "nan" not in text.lower().split()
        assert "has no image in the test split" in " ".join(text.split())


def test_collected_parts_make_a_page_that_marks_the_data(rows: list[ComparisonRow], toy: Cases) -> None:
    evaluation = EvaluationRow("toy", False, "made up", "raw pixels", "knn", 0, 4, "none", {}, rows[0].scores)
    report = ReportData(
        title="toy", created="now", seed=0, config_sha256="0", code_version="0",
        datasets=(collect.data_set({"train": toy, "test": toy}, "toys", "CC0"),),
        arms=collect.arms_of(rows),
        few_label=collect.few_label_results(rows),
        differences=collect.auc_differences(rows),
        probes=collect.probe_results([evaluation]),
        confusions=(collect.confusion_of(rows[-1]),),
        embeddings=(collect.embedding_of(toy, np.random.default_rng(0).normal(size=(4, 3)), "four images"),),
    )  # fmt: skip
    assert list(report.arms) == [SCRATCH, FINETUNED]
    assert report.datasets[0].classes == ("well", "ill")
    assert report.datasets[0].images == {"train": 4, "test": 4}
    assert np.sum(report.confusions[0].counts) == 40
    assert report.probes[0].auc.value == rows[0].scores.auc.estimate
    assert "unofficial" in render_page(report)
