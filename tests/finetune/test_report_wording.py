from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from finetune.report import axes, wording
from finetune.report.document import Difference, ReportData
from finetune.report.markup import element, join
from finetune.report.projection import principal_plane
from finetune.report.terminal import COLUMNS, render_terminal
from tests.finetune.report_sample import ARMS, BREAST, CHEST, RETINA, sample_report


def difference(low: float, high: float, dataset: str = BREAST) -> Difference:
    mean = (low + high) / 2
    return Difference(
        dataset=dataset, budget=16, arm="pretrained", baseline="from scratch", mean=mean, low=low, high=high
    )


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.05, "higher"),
        (-0.05, -0.01, "lower"),
        (-0.01, 0.09, "no clear difference"),
        (0, 0.1, "no clear difference"),
    ],
)
def test_the_interval_and_not_the_mean_decides_the_verdict(low: float, high: float, word: str) -> None:
    assert wording.verdict(difference(low, high)) == word


def test_it_says_when_pretraining_did_not_help_and_takes_few_sentences() -> None:
    report = sample_report().model_copy(update={"differences": (difference(-0.1, 0.2), difference(0.1, 0.2, CHEST))})
    said = wording.findings(report)
    assert "It is not shown that pretraining helps here." in said[BREAST]
    assert wording.basis(report).startswith("5 seeds; 95 % t interval over paired seeds; ")
    assert not any("not shown" in sentence for sentence in said[CHEST])
    assert all(len(sentences) <= 4 for sentences in wording.findings(sample_report()).values())


def test_many_differences_are_counted_in_one_sentence_with_the_largest_clear_one() -> None:
    gaps = (difference(-0.1, 0.2), difference(0.1, 0.3), difference(0.05, 0.1), difference(-0.3, -0.2))
    said = wording.findings(sample_report().model_copy(update={"differences": gaps}))[BREAST]
    assert said[1] == (
        "Of 4 paired differences to a baseline: 2 higher, 1 lower, 1 not clear; the largest clear one: "
        "'pretrained' against 'from scratch', −0.250 in AUC with 16 labels, lower."
    )


def test_a_class_that_is_mostly_missed_is_told_beside_the_auc() -> None:
    (said,) = [sentence for sentence in wording.findings(sample_report())[RETINA] if "recognises only" in sentence]
    assert "recognises only 5 of 20 images of '4' (25 %)" in said


def test_it_says_when_raw_pixels_beat_the_pretrained_network() -> None:
    found = wording.findings(sample_report())
    sentences = [(name, sentence) for name in found for sentence in found[name] if "probe" in sentence]
    assert [name for name, _ in sentences] == [BREAST]
    assert "'raw pixels' (0.671)" in sentences[0][1]
    assert "(0.640)" in sentences[0][1]


@pytest.mark.parametrize(("value", "text"), [(0.0123, "+0.012"), (-0.5, "−0.500"), (-0.0004, "0.000"), (0.0, "0.000")])
def test_differences_carry_a_sign_unless_they_round_to_zero(value: float, text: str) -> None:
    assert wording.signed(value) == text


def test_the_terminal_table_fits_and_marks_unofficial_data() -> None:
    report = sample_report()
    text = render_terminal(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert max(len(line) for line in lines if not line.startswith("Probes")) <= COLUMNS
    assert text.count(CHEST) == text.count(f"{CHEST} [unofficial]") > 0
    assert wording.NOT_FOR_CLINICAL_USE in text
    for result in report.few_label:
        assert wording.spread(result.auc) in text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"differences": (difference(0, 1, "missing"),)}, "unknown data set: missing"),
        ({"arms": {"from scratch": ""}}, "unknown arm: pretrained"),
        ({"datasets": (sample_report().datasets[0],) * 2}, "same name"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(change: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ReportData.model_validate({**dict(sample_report()), **change})


def test_scores_outside_zero_to_one_and_nan_are_refused() -> None:
    result = sample_report().few_label[0].model_dump()
    for value in (1.2, float("nan")):
        with pytest.raises(ValidationError):
            type(sample_report().few_label[0]).model_validate({**result, "auc": (value,) * 5})


def test_the_principal_plane_is_that_of_the_covariance_matrix() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1] + 7
    points, explained = principal_plane(embeddings)
    values, vectors = np.linalg.eigh(np.cov(embeddings.T))
    expected = (embeddings - embeddings.mean(0)) @ vectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-10)
    np.testing.assert_allclose(explained, values[[-1, -2]] / values.sum(), atol=1e-12)


def test_the_plane_of_one_image_or_of_equal_images_is_a_point() -> None:
    for embeddings in (np.ones((1, 4)), np.ones((5, 3)), np.arange(4.0)[:, None]):
        points, explained = principal_plane(embeddings)
        assert points.shape == (len(embeddings), 2)
        assert np.isfinite(points).all()
        assert 0 <= sum(explained) <= 1 + 1e-12


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.537, 0.541), (-3, 12_345), (2, 2), (0, 0), (1e-9, 3e-9)])
def test_ticks_enclose_the_data_in_few_even_steps(low: float, high: float) -> None:
    ticks = axes.nice_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_markup_escapes_text_and_attributes_but_not_itself() -> None:
    inner = element("b", "a<b", title='"q"')
    assert inner == '<b title="&quot;q&quot;">a&lt;b</b>'
    assert element("p", inner, " & ") == f"<p>{inner} &amp; </p>"
    assert join(["<", inner]) == f"&lt;{inner}"


def test_each_arm_has_a_row_in_the_order_given_with_its_difference_beside_it() -> None:
    report = sample_report()
    rows = [line.split("  ")[1:] for line in render_terminal(report).splitlines() if line.startswith("  16 ")]
    shown = [next(arm for arm in ARMS if arm in "  ".join(row[:6])) for row in rows]
    assert shown == list(ARMS) * len(report.datasets)
    gap = report.differences[0]
    interval = f"{wording.signed(gap.mean)} [{wording.signed(gap.low)}, {wording.signed(gap.high)}] to from scratch"
    assert interval in "  ".join(rows[1])
