"""What the page of a run says is computed anew from its predictions file, by scikit-learn and scipy."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta
from sklearn import metrics

from data_shards.support.errors import ConfigError, DataError
from data_shards.support.files import finite
from data_shards.vocabulary import Task
from finetune.report.run import numbers, words
from finetune.report.run.page import render_run
from finetune.report.run.results import read_run
from tests.finetune.run_folder import NAMES, write_run
from tests.finetune.test_report_page import read


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def columns(rows: list[dict[str, str]], pattern: str, task: Task) -> np.ndarray:
    return np.array([[float(row[pattern.format(name)]) for name in NAMES[task]] for row in rows])


def shown(folder: Path, first: str) -> list[list[str]]:
    """The rows of the table of the page whose first heading is ``first``."""
    found = [each for each in read(render_run(read_run(folder), {}, {})).tables if each[0][0] == first]
    assert len(found) == 1
    return found[0][1:]


def test_a_binary_page_says_what_scikit_learn_says(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Task.binary)
    rows = table(folder)
    truth = np.array([row["label"] == "malignant" for row in rows])
    said = columns(rows, "p({})", Task.binary)[:, 1]
    at = np.array([row["at threshold"] == "malignant" for row in rows])
    scores = {row[0]: row[1] for row in shown(folder, "score")}
    assert scores["AUC"] == f"{metrics.roc_auc_score(truth, said):.3f}"
    assert scores["accuracy"] == f"{metrics.accuracy_score(truth, said > 0.5):.3f}"
    assert scores["balanced accuracy"] == f"{metrics.balanced_accuracy_score(truth, said > 0.5):.3f}"
    (area,) = shown(folder, "class against the rest")
    assert area[2] == f"{metrics.roc_auc_score(truth, said):.3f}"
    assert area[4] == f"{metrics.average_precision_score(truth, said):.3f}"
    errors = {row[0]: row[1] for row in shown(folder, "error")}
    assert errors["Brier score"] == f"{metrics.brier_score_loss(truth, said):.3f}"
    confusion = [[int(cell.split()[0]) for cell in row[1:3]] for row in shown(folder, "true \\ predicted")]
    assert confusion == metrics.confusion_matrix(truth, at).tolist()
    results = read_run(folder).results[0]
    recall = numbers.class_shares(results)[1].recall
    k, n = int((at & truth).sum()), int(truth.sum())
    assert recall is not None and recall.estimate == metrics.recall_score(truth, at)
    assert (recall.low, recall.high) == pytest.approx((beta.ppf(0.025, k, n - k + 1), beta.ppf(0.975, k + 1, n - k)))
    text = " ".join(words.findings(results))
    assert f"{k} of {n} “malignant” are recognised (sensitivity {words.percent(k / n)}, " in text
    share = max(truth.mean(), 1 - truth.mean())
    assert f"Always answering “benign” would be right for {words.percent(share)}" in text
    cases = shown(folder, "case")
    assert {row[0]: (row[1], row[2], row[4]) for row in cases} == {
        row["key"]: (row["label"], row["at threshold"], f"{float(row['p(malignant)']):.3f}") for row in rows
    }


def test_a_page_of_several_classes_says_what_scikit_learn_says(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Task.multiclass)
    rows = table(folder)
    names = list(NAMES[Task.multiclass])
    truth = np.array([names.index(row["label"]) for row in rows])
    said = columns(rows, "p({})", Task.multiclass)
    scores = {row[0]: row[1] for row in shown(folder, "score")}
    area = metrics.roc_auc_score(truth, said / said.sum(axis=1, keepdims=True), multi_class="ovr")
    assert scores["AUC"] == f"{area:.3f}"
    assert scores["accuracy"] == f"{metrics.accuracy_score(truth, said.argmax(axis=1)):.3f}"
    confusion = [[int(cell.split()[0]) for cell in row[1:5]] for row in shown(folder, "true \\ predicted")]
    assert confusion == metrics.confusion_matrix(truth, said.argmax(axis=1)).tolist()
    recalls = metrics.recall_score(truth, said.argmax(axis=1), average=None)
    found = [each.recall.estimate for each in numbers.class_shares(read_run(folder).results[0]) if each.recall]
    np.testing.assert_allclose(found, recalls)


@pytest.mark.parametrize("task, repeats", [*((task, 1) for task in NAMES), (Task.binary, 3)])
def test_a_page_says_what_the_record_says_of_probabilities_that_differ_in_the_eighth_digit(
    tmp_path: Path, task: Task, repeats: int
) -> None:
    folder = write_run(tmp_path / "run", task, count=60, repeats=repeats, subjects=True, temperature=1e7)
    said = columns(table(folder), "predicted: {}" if task is Task.regression else "p({})", task)
    assert len(np.unique(said.round(6))) < 10 < 50 < len(np.unique(said))
    run = read_run(folder)
    kept = run.metrics["estimates"]["test"]["scores"]
    assert finite(run.results[0].scores.as_json()) == kept
    values = {row[0]: row[1] for row in shown(folder, "score")}
    name, kind = ("AUC", "auc") if task is not Task.regression else ("R2", "r2")
    digits = "{:.3f}".format if task is not Task.regression else words.measured
    assert values[name] == digits(kept[kind]["estimate"])


def test_pages_of_several_labels_and_of_numbers_say_what_scikit_learn_says(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "labels", Task.multilabel)
    rows = table(folder)
    truth, said = columns(rows, "label: {}", Task.multilabel), columns(rows, "p({})", Task.multilabel)
    scores = {row[0]: row[1] for row in shown(folder, "score")}
    assert scores["AUC"] == f"{metrics.roc_auc_score(truth, said):.3f}"
    assert {row[0]: row[2] for row in shown(folder, "class against the rest")} == {
        name: f"{metrics.roc_auc_score(truth[:, place], said[:, place]):.3f}"
        for place, name in enumerate(NAMES[Task.multilabel])
    }
    folder = write_run(tmp_path / "numbers", Task.regression)
    rows = table(folder)
    truth, said = columns(rows, "label: {}", Task.regression), columns(rows, "predicted: {}", Task.regression)
    scores = {row[0]: row[1] for row in shown(folder, "score")}
    assert scores["R2"] == f"{metrics.r2_score(truth, said):.3f}"
    error = metrics.mean_absolute_error(truth, said)
    assert scores["mean absolute error in units of the label"] == f"{error:.3f}"
    found = next(words.findings(read_run(folder).results[0]))
    constant = metrics.mean_absolute_error(truth, np.full_like(truth, truth.mean()))
    assert f"off by {error:.3f} " in found and f"would be off by {constant:.3f}." in found


def test_the_scores_of_a_repeated_cross_validation_are_the_mean_over_the_repeats(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Task.binary, split="cross-validation", repeats=3, subjects=True)
    rows = table(folder)
    truth = np.array([row["label"] == "malignant" for row in rows])
    repeats = [[float(row[f"repeat {number}: p(malignant)"]) for row in rows] for number in (1, 2, 3)]
    expected = np.mean([metrics.roc_auc_score(truth, said) for said in repeats])
    results = read_run(folder).results[0]
    assert results.scores.auc.estimate == pytest.approx(expected, abs=1e-9)
    assert results.scores.subjects == 60 and len(set(results.subjects.tolist())) == 60
    assert "each predicted by a model that had not seen it" in words.headline(results)
    page = render_run(read_run(folder), {}, {})
    assert "a decision is that of the first repeat at the threshold of its fold" in page
    assert "Predicted means decided at the threshold. The threshold was chosen on held-out training labels" in page
    at = words.decided_how(results.at(0.2))
    assert at == words.threshold_rule(results.at(0.2)) and "above 0.2;" in at


def test_average_precision_with_ties_and_weights_and_both_curves_are_those_of_scikit_learn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 80).astype(bool)
    said = np.round(0.3 * truth + rng.uniform(0, 0.7, 80), 1)
    counts = rng.integers(0, 4, (5, 80)).astype(float)
    found = numbers.average_precision(truth, said, Task.binary, counts)
    for value, weight in zip(found, counts, strict=True):
        assert value == pytest.approx(metrics.average_precision_score(truth, said, sample_weight=weight))
    results = read_run(write_run(tmp_path / "run", Task.binary)).results[0]
    ((_, truth, said),) = numbers.columns(results)
    curve = numbers.roc(results, truth, said, band=True)
    false, true, _ = metrics.roc_curve(truth, said, drop_intermediate=False)
    np.testing.assert_allclose((curve.x, curve.y), (false, true))
    assert ((curve.low <= curve.high) & (curve.low >= 0) & (curve.high <= 1)).all()
    curve = numbers.precision_recall(results, truth, said, band=False)
    precision, recall, _ = metrics.precision_recall_curve(truth, said)
    np.testing.assert_allclose((curve.x, curve.y), (recall[-2::-1], precision[-2::-1]))


def test_bins_of_calibration_hold_every_case_once_and_their_share_that_came_true(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run", Task.binary)).results[0]
    bins = numbers.calibration(results)
    order = np.argsort(results.mean[:, 1], kind="stable")
    assert [each.count for each in bins] == [12] * 10
    for each, part in zip(bins, np.array_split(order, 10), strict=True):
        assert each.came.estimate == pytest.approx((results.labels[part, 0] == 1).mean())
        assert each.said == pytest.approx(results.mean[part, 1].mean())


def test_another_threshold_and_another_class_to_look_for_change_the_decisions_and_say_so(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run", Task.binary)).results[0]
    said, truth = results.mean[:, 1], results.labels[:, 0] == 1
    at = results.at(0.2)
    assert numbers.class_shares(at)[1].recognised == int((truth & (said > 0.2)).sum())
    assert "given for this page" in words.threshold_rule(at) and "above 0.2;" in words.threshold_rule(at)
    other = results.looking_for("benign")
    assert (other.decided == results.decided).all()
    assert "“benign” from “malignant” with an AUC of" in words.headline(other)
    assert other.scores.auc.estimate == results.scores.auc.estimate
    turned = other.at(0.2)
    assert (turned.decided[:, 0] == np.where(1 - said > 0.2, 0, 1)).all()
    for wrong in (lambda: results.at(1.5), lambda: results.looking_for("malign")):
        with pytest.raises(ConfigError, match="threshold is 1.5|no class 'malign'; did you mean 'malignant'"):
            wrong()


def test_a_table_that_was_changed_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Task.binary)
    path = folder / "predictions.csv"
    for old, new in (("p(malignant)", "p(x)"), (",benign,", ",bening,")):
        text = path.read_text()
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(DataError, match=r"predictions\.csv: split test: not what finetune writes"):
            read_run(folder)
        path.write_text(text)
