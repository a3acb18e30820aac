"""What the studies of BrainFuse and of the objectives rest on: labels, splits, scores, equal terms and equal time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from benchmarks.studies import brains, explain, fusing, objectives
from benchmarks.studies.brainfuse import top
from benchmarks.studies.grounds import Ground, half
from benchmarks.studies.runs import VIEWS
from data_shards.vocabulary import Task
from finetune.classifier.estimator import FewLabelClassifier
from tests.finetune.samples import tiny_backbone


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> brains.Brains:
    monkeypatch.setattr(brains, "_PHANTOMS", 16)
    return brains.drawn(tmp_path)


def test_tenths_are_of_the_slices_from_the_first_to_the_last_that_shows_it() -> None:
    seen = np.zeros((2, 24), dtype=bool)
    seen[0, [2, 21]] = True  # What lies between counts whether it shows anything or not.
    seen[1, 5:15] = True
    found = brains.tenths(seen)
    assert found[0].tolist() == [-1, -1, *np.repeat(range(10), 2), -1, -1]
    assert found[1].tolist() == [*[-1] * 5, *range(10), *[-1] * 9]


def test_subjects_are_in_one_split_and_the_generator_sees_those_of_training(few: brains.Brains, tmp_path: Path) -> None:
    names = [set(part.subjects) for part in few.parts.values()]
    assert len(set.union(*names)) == sum(map(len, names)) == 16
    crossed = replace(few, parts={**few.parts, "train": few.parts["test"]})
    with pytest.raises(AssertionError, match="training subjects and from no others"):
        brains.generator_of(tmp_path, crossed)
    assert not (tmp_path / few.name / "generator").exists()


def test_a_slice_is_told_its_tenth_and_its_subject(few: brains.Brains) -> None:
    cases, place = few.slices("train")
    part = few.parts["train"]
    assert np.bincount(cases.known_labels[:, 0]).tolist() == [3 * len(part.subjects)] * 10
    subject, height = divmod(int(place[40]), 32)
    assert isinstance(cases.images, np.ndarray)
    assert (cases.images[40] == part.volumes[subject, :, height]).all()
    assert cases.subjects is not None and cases.subjects[40] == part.subjects[subject]
    assert cases.known_labels[40, 0] == (height - 1) // 3


def test_top_k_is_that_of_scikit_learn_and_counts_are_repetitions() -> None:
    random = np.random.default_rng(0)
    labels, scores = random.integers(10, size=60), random.random((60, 10))
    counts = random.integers(0, 4, size=60)
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(10))
        assert top(k)(labels, scores, Task.multiclass) == pytest.approx(expected)
        repeated = top_k_accuracy_score(labels.repeat(counts), scores.repeat(counts, 0), k=k, labels=range(10))
        assert top(k)(labels, scores, Task.multiclass, counts) == pytest.approx(repeated)


def test_volumes_are_halved_by_means() -> None:
    volumes = np.random.default_rng(0).integers(256, size=(2, 1, 4, 6, 2), dtype=np.uint8)
    found = half(volumes)
    assert found.shape == (2, 1, 2, 3, 1) and found.dtype == np.uint8
    assert found[1, 0, 1, 2, 0] == round(float(volumes[1, 0, 2:, 4:, :].mean()))


def test_arms_begin_with_the_same_weights_and_see_the_same_first_slices(
    few: brains.Brains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "STEPS", 1)
    monkeypatch.setattr(fusing, "ROWS", 4)
    said: list[str] = []
    networks = []
    for arm in fusing.ARMS:
        if arm.images not in (None, "generator"):
            networks.append(fusing.pretrained(few, arm, 3, Path("none"), said.append))
    first = {line.partition("second")[0].partition("step")[2] for line in said}
    second = {line.partition("second")[2] for line in said}
    assert len(first) == 1 and len(second) == len(said) == len(networks) > 4, said
    before, after = fusing.fresh(3).query, [network.query for network in networks]
    assert all(not torch.equal(before, each) for each in after)


def test_all_seeds_of_an_objective_take_the_steps_that_were_measured_once(
    few: brains.Brains, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {split: few.slices(split)[0] for split in brains.SPLITS}
    ground = Ground("slices", {"slices": splits}, 4, VIEWS)
    monkeypatch.setattr(objectives, "SECONDS", 1.0)
    monkeypatch.setattr(objectives, "TIMED", 2)
    steps = objectives.steps_for(tmp_path, ground, "rotation")
    kept = json.loads((tmp_path / "steps" / "slices" / "rotation.json").read_text())
    assert steps == round(1.0 / kept["step_cpu_s"]) > 0
    monkeypatch.setattr(objectives, "trained", None)  # Not measured again.
    assert objectives.steps_for(tmp_path, ground, "rotation") == steps


def test_findings_of_phantoms_are_where_their_masks_are() -> None:
    found = explain.phantoms("phantom-brain-mri-2d", 16, 24, 3)
    subjects = [set(each.cases.subjects.tolist()) for each in found.values()]
    assert not set.intersection(*subjects) and sum(len(each.cases) for each in found.values()) > 20
    for each in found.values():
        shown = each.masks.any(axis=(1, 2))
        assert (shown == (each.cases.known_labels[:, 0] == explain.FINDING)).all()


def test_a_volume_is_cut_or_padded_around_its_middle() -> None:
    values = np.arange(1, 6 * 3 + 1).reshape(6, 3)
    found = explain._centred(values, (4, 5))
    np.testing.assert_array_equal(found[:, 1:4], values[1:5])
    assert (found[:, [0, 4]] == 0).all()


def test_the_baseline_of_occlusion_is_chosen_on_validation_cases_with_the_finding() -> None:
    splits = explain.phantoms("phantom-brain-mri-2d", 24, 48, 3)
    some = explain.with_finding(splits["val"])
    assert len(some) and splits["val"].masks[some].any(axis=(1, 2)).all()
    model = FewLabelClassifier(tiny_backbone(), calibrate=False, head_options={"reads": "raw"})
    model.fit(splits["train"].cases)
    masses = explain.validated(model, splits["val"])
    assert set(masses) == set(explain.BASELINES) and masses["mean"] != masses["blur"]
    none = replace(splits["val"].cases, labels=np.zeros_like(splits["val"].cases.known_labels))
    assert not len(explain.with_finding(explain.Findings(none, splits["val"].masks)))
