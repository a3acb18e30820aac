"""The study of the benchmark: what views show, that votes are those of the product, what tables say, what is left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.studies import benchmark_equal, benchmark_left_out, benchmark_tables
from benchmarks.studies.benchmark_reads import NETWORK_READS, Frozen, Said, Voter, closer, found, mirrored, place, tenth
from benchmarks.studies.benchmark_tries import DEFAULT, GOAL, MEAN, TRIES, chosen, scored
from benchmarks.studies.recipe import PUBLISHED
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.linear import RAW as PIXELS
from finetune.study.arms import BASELINE, PRETRAINED, RANDOM, RAW
from finetune.study.tidy import ALL, JSON
from pretrain.bundle import save_bundle
from pretrain.config import PretrainConfig
from tests.finetune.samples import TINY, blobs, tiny_backbone


def test_views_are_the_image_its_mirror_image_and_its_corners() -> None:
    random = np.random.default_rng(0)
    for shape in ((2, 3, 10, 15), (2, 1, 10, 10, 20)):
        images = random.integers(256, size=shape, dtype=np.uint8)
        plain, turned = mirrored(images)
        assert (plain == images).all() and (turned == np.flip(images, -1)).all()
        views = closer(images)
        assert len(views) == 5 and (views[0] == images).all()
        assert all(view.shape == shape and view.dtype == np.uint8 for view in views)
        ends = {}
        for corner in np.ndindex(*(2,) * (len(shape) - 2)):
            at = (..., *(-end for end in corner))
            ends[corner] = [number for number, view in enumerate(views[1:]) if (view[at] == images[at]).all()]
        # Each view has one corner of the image in its place; of a volume, corners that share no edge.
        assert sorted(number for each in ends.values() for number in each) == [0, 1, 2, 3]
        assert all(len(ends[corner]) == (len(corner) == 2 or sum(corner) % 2 == 0) for corner in ends)


def test_the_default_votes_as_the_product_does_and_a_fit_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    splits = {"train": blobs(120, seed=1), "test": blobs(30, seed=2)}
    frozen = Frozen(tmp_path, "tiny", tmp_path / "tiny", "set", splits, [0])
    for voter in TRIES[DEFAULT]:
        frozen.fit(voter, 0)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "fits").rglob("*.npz")}
    assert len(files) == len(NETWORK_READS) + 1 and not list(tmp_path.rglob("*.partial"))
    Frozen(tmp_path, "tiny", tmp_path / "absent", "set", splits, [0]).fit(Voter(PIXELS), 0)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    said = [found(tmp_path, "tiny", "set", voter, 0) for voter in TRIES[DEFAULT]]
    given = splits["train"][tenth(tmp_path, splits, 0).positions]
    product = FewLabelClassifier(tmp_path / "tiny", calibrate=False, seed=0).fit(given)
    mean = np.mean([each.test for each in said if each is not None], axis=0)
    np.testing.assert_allclose(mean, product.predict_proba(splits["test"]), atol=1e-6)
    assert place(tmp_path, "tiny", "set", Voter(PIXELS), 0) in files
    assert found(tmp_path, "tiny", "set", Voter(PIXELS), 1) is None


def test_votes_are_scored_by_the_mean_of_their_probabilities_on_the_cases_that_were_held_out() -> None:
    given, test = blobs(12), blobs(20, seed=3)
    random = np.random.default_rng(0)
    each = [Said(random.dirichlet((1, 1), 12), random.dirichlet((1, 1), 20), "") for _ in range(3)]
    for said in each:
        said.held_out[[2, 5]] = np.nan
    loss, area = scored(given, test, each)
    there = np.setdiff1d(np.arange(12), [2, 5])
    assert loss == pytest.approx(log_loss(given.targets[there], sum(said.held_out for said in each)[there] / 3))
    assert area == pytest.approx(roc_auc_score(test.targets, sum(said.test for said in each)[:, 1] / 3))
    assert chosen({"a": 0.5, "b": 0.4, "c": 0.4}) == "b"


def kept(file: Path, areas: dict[tuple[str, str, int], float]) -> None:
    """An evaluation of a set as the command writes it, as far as it is read."""
    rows = [
        {"class": "", "group_by": "", "protocol": "few_label", "arm": arm, "budget": budget, "seed": seed,
         "metric": "auc", "value": area, "index_sha256": f"{seed}" * 64, "labelled_images": 6}
        for (arm, budget, seed), area in areas.items()
    ]  # fmt: skip
    rows += [{**row, "class": "0 benign", "value": 0.0} for row in rows]
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"rows": rows}))


def test_tables_have_the_sets_that_are_there_and_the_mean_of_all_four(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    means = []
    for name in PUBLISHED:
        keys = [(arm, budget, seed) for arm in (RAW, RANDOM, PRETRAINED) for budget in benchmark_tables.BUDGETS
                for seed in range(3)]  # fmt: skip
        areas = dict(zip(keys, random.random(len(keys)).tolist(), strict=True))
        kept(benchmark_tables.place(tmp_path, name) / JSON, areas)
        means.append([[areas[arm, "10 %", seed] for seed in range(3)] for arm in (RAW, PRETRAINED)])
        rows = benchmark_tables.rows_of(tmp_path)
        few = {row[:2]: row for row in benchmark_tables.few_table(rows).rows}
        assert few[name, "10 %"][4] == f"{np.mean(means[-1][1]):.3f}"
        assert ((MEAN, "10 %") in few) == (len(rows) == 4)
    raw, released = np.mean(means, axis=0)
    assert few[MEAN, "10 %"][5].startswith(f"{(released - raw).mean():+.3f} [")
    last = benchmark_tables.distance_table(rows).rows[-1]
    assert last[0] == MEAN and last[-1] == f"{released.mean() - GOAL:+.3f}" and pytest.approx(0.82725) == GOAL
    assert benchmark_tables.draws_table(rows).rows[0][2:] == ("6", f"{'0' * 12}, {'1' * 12}, {'2' * 12}")


def test_the_resnet_is_beside_the_released_network_on_the_same_draws(tmp_path: Path) -> None:
    given = {
        (BASELINE, "1 %"): (0.5, 0.6, 0.7),
        (PRETRAINED, "1 %"): (0.7, 0.5, 0.9),
        (RAW, "1 %"): (0.1, 0.1, 0.1),
        (PRETRAINED, ALL): (1.0, 1.0, 1.0),
    }
    areas = {(*key, seed): area for key, each in given.items() for seed, area in enumerate(each)}
    for number, name in enumerate(PUBLISHED):
        kept(benchmark_equal.place(tmp_path, name, "1 %", 100) / JSON, areas)
        rows = {row[:2]: row for row in benchmark_equal.table(tmp_path, 100).rows}
        assert rows[name, "1 %"][2:4] == ("0.600", "0.700") and rows[name, "1 %"][-1] == "2 of 3"
        # The differences are .2, -.1 and .2: their mean .1, their deviation sqrt(.03), 4.303 of them over sqrt(3).
        assert rows[name, "1 %"][4] == "+0.100 [-0.330, +0.530]"
        assert len(rows) == number + 1 + (number == 3)
    assert rows[MEAN, "1 %"][2:] == rows["breastmnist", "1 %"][2:]
    assert benchmark_equal.table(tmp_path, 50).rows == ()


def test_one_set_is_left_out_of_the_document_and_all_else_stays(tmp_path: Path) -> None:
    for name in PUBLISHED:
        (tmp_path / "shards" / name).mkdir(parents=True)
        (tmp_path / "shards" / name / "manifest.json").write_text("{}")
    whole = benchmark_left_out.document(tmp_path, benchmark_left_out.NOTHING, 3)
    assert {Path(each["path"]).name for each in whole["data"]["datasets"]} == set(PUBLISHED)
    for name in PUBLISHED:
        run = benchmark_left_out.document(tmp_path, name, 3)
        PretrainConfig.model_validate(run)
        others = [each for each in whole["data"]["datasets"] if Path(each["path"]).name != name]
        assert len(others) == 3 and run["schedule"]["max_steps"] == 3
        assert run == {**whole, "out": run["out"], "data": {**whole["data"], "datasets": others}}
        assert run["out"] != whole["out"]
