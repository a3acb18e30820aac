"""What stands on the page of a run, and what must not."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.sample import Image
from data_shards.vocabulary import Task
from finetune.images import Study
from finetune.report.pictures import MOST_SIDE, MOST_SLICES, picture_of, within
from finetune.report.run import words
from finetune.report.run.cases import examples, order_of_interest, table
from finetune.report.run.page import NO_IMAGES, WITH_IMAGES, render_run
from finetune.report.run.results import read_run
from tests.finetune.run_folder import NAMES, write_run
from tests.finetune.test_report_page import read

TASKS = (Task.binary, Task.multiclass, Task.ordinal, Task.multilabel, Task.regression)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_page_that_nests_asks_for_nothing_and_names_nobody(tmp_path: Path, task: Task) -> None:
    page = render_run(read_run(write_run(tmp_path / "run", task, subjects=True)), {}, {})
    reader = read(page)
    assert "://" not in page and "Anna" not in page and not re.search(r"\b(nan|inf)\b", "".join(reader.text))
    assert "<img" not in page and NO_IMAGES in "".join(reader.text)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    (policy,) = [value for _, name, value in reader.attributes if name == "content" and "default-src" in value]
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = [value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")]
    anchors = ["#" + value for tag, name, value in reader.attributes if (tag, name) == ("section", "id")]
    assert links == anchors and {"#result", "#data", "#cases", "#provenance"} <= set(links)
    text = "".join(reader.text)
    for name in NAMES[task]:
        assert name in text
    assert "not for clinical use" in text and "CC0" in text and "made up for a test" in text


def test_hostile_names_of_classes_stay_text(tmp_path: Path) -> None:
    page = render_run(read_run(write_run(tmp_path / "run", Task.multiclass)), {}, {})
    assert "<b>other</b>" not in page and "<b>other</b>" in "".join(read(page).text)


def test_a_good_order_beside_poor_decisions_gets_a_word(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run", Task.binary, skill=2.0)).results[0]
    assert not list(words.tension(results))
    (said,) = words.tension(results.at(0.9))
    missed = int(((results.mean[:, 1] <= 0.9) & (results.labels[:, 0] == 1)).sum())
    share = 1 - missed / (results.labels[:, 0] == 1).sum()
    assert f"of “malignant” only {words.percent(share)} are recognised" in said and "the AUC of 0.9" in said


def test_predictions_that_show_nothing_say_so_first(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run", Task.binary, 40, skill=0.0)).results[0]
    assert words.headline(results).startswith("The interval of the AUC includes 0.5: it is not shown that anything was")
    assert any(re.search("which is (less|not shown to be more)", sentence) for sentence in words.findings(results))


def test_wrong_cases_come_first_and_examples_show_a_right_and_a_wrong_one_of_each_class(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run", Task.binary)).results[0]
    order = order_of_interest(results)
    wrong = int((~results.right).sum())
    assert not results.right[order[:wrong]].any() and results.right[order[wrong:]].all()
    assert (np.diff(results.uncertainty[order[:wrong]]) >= 0).all()
    assert (np.diff(results.uncertainty[order[wrong:]]) <= 0).all()
    shown = examples(results, results.keys)
    assert [text for _, text in shown] == [
        "benign, recognised", "benign, taken for malignant", "malignant, recognised", "malignant, taken for benign",
    ]  # fmt: skip


def test_pictures_are_small_hold_the_slices_of_volumes_and_are_left_out_beyond_the_room(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = Image(rng.normal(0, 1000, (1, 70, 200, 100)).astype(np.float32))
    found = picture_of(Study({"image": volume}), "row 2")
    assert (found.width, found.height, found.slices) == (MOST_SIDE // 2, MOST_SIDE, MOST_SLICES)
    plane = picture_of(Study({"image": Image(rng.integers(0, 256, (3, 20, 30), dtype=np.uint8))}), "row 3")
    assert (plane.width, plane.height, plane.slices) == (30, 20, 1)
    kept = within([("a", plane), ("b", plane), ("c", plane)], 2 * len(plane.content) + 1)
    assert list(kept) == ["a", "b"]
    run = read_run(write_run(tmp_path / "run", Task.binary, 20))
    page = render_run(run, {"row 2": found, "row 3": plane}, {})
    assert page.count("data:image/webp;base64,") >= 2 and WITH_IMAGES in page and NO_IMAGES not in page
    assert "img-src data:" in page and 'aria-label="look at the image of row 2"' in page


def test_raw_pixels_and_prevalence_are_told_where_the_record_knows_of_them(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", Task.binary))
    assert not list(words.raw_pixels(run)) and not list(words.prevalence(run, run.results[0]))
    fit, data = run.metrics["fit"], run.metrics["data"]
    no, yes = "it is not shown that the network helps", "the network helps"
    for raw, vote, said in ((0.5, 0.4, no), (0.7, 0.4, yes), (0.7, 0.8, no)):
        fit["chosen"]["held_out_loss"] = {"raw": raw, "vote": vote, "embedding": 0.6, "mean": 0.65}
        (sentence,) = words.raw_pixels(run)
        told = (
            f"{raw:.3f} on raw pixels and 0.600 on the best of what the network reads ({vote:.3f} on the vote of all)"
        )
        assert sentence == f"Within the labels, held-out log loss was {told}: {said}."
    data["given"] = {"cases": 20, "classes": {"benign": 4, "malignant": 16}}
    (said,) = words.prevalence(run, run.results[0])
    share = (run.results[0].labels[:, 0] == 1).mean()
    assert f"80\N{NO-BREAK SPACE}% of the labels used were “malignant”, of these images {words.percent(share)}" in said


def test_intervals_of_numbers_stand_in_the_table_and_one_that_holds_everything_says_so(tmp_path: Path) -> None:
    results = read_run(write_run(tmp_path / "run", Task.regression, 12)).results[0]
    around = np.stack([results.mean - 2.5, results.mean + 2.5], axis=-1)
    around[0] = (-np.inf, np.inf)
    (rows,) = read(table(replace(results, ends=around), {}, {})).tables
    cells = {row[0]: row[4] for row in rows[1:]}
    assert rows[0][4] == "interval" and cells["row 2"] == "anything"
    low, high = around[1, 0]
    assert cells["row 3"] == f"{low:.3f} to {high:.3f}"
