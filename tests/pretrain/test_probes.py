"""Probes during a run: what they say, that they leave no trace, and that no subject is on both sides."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.support.errors import MedformerError
from data_shards.vocabulary import Task
from data_shards.writing.writer import write_dataset
from finetune.study.probes import knn_probe
from finetune.targets import create_target
from pretrain.backbone import normalise
from pretrain.bundle import load_bundle
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.metadata import Metadata
from pretrain.preflight import check
from pretrain.probes.config import ProbedConfig
from pretrain.probes.images import labelled_images
from pretrain.probes.scores import linear, mean_auc, nearest, probe_scores
from tests.data_shards.made_sources import Listed, toy_source
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import GroupRuntime, Run, document, untimed

STEPS = 5
KWARGS = {"embed_dim": 32, "depth": 3, "num_heads": 2, "latents": 2, "drop_path_rate": 0.5}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"), 1 << 30)


def run_of(shards: Path, out: Path, every: int | None, **changes: Any) -> Run:
    """A run that is probed every so many steps, or not at all."""
    probes = {} if every is None else {"probes": {"datasets": [{"path": str(shards)}], "every_steps": every}}
    content = document(
        shards,
        out,
        **{"schedule": {"max_steps": STEPS}, "model": {"kwargs": KWARGS}, "log_every_steps": 1, **probes, **changes},
    )
    assert run(PretrainConfig.model_validate(content), GroupRuntime()) == out / "bundle"
    return Run(out, out)


def unprobed(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if not name.startswith("probe/")} for line in untimed(lines)]


@pytest.mark.usefixtures("process_group")
def test_a_run_is_the_same_bits_with_and_without_probes(shards: Path, tmp_path: Path) -> None:
    without, probed = run_of(shards, tmp_path / "without", None), run_of(shards, tmp_path / "probed", 2)
    weights = [(each.out / "bundle" / "model.safetensors").read_bytes() for each in (without, probed)]
    assert weights[0] == weights[1]
    assert unprobed(probed.metrics()) == untimed(without.metrics())
    states = [
        torch.load(next((each.out / "checkpoints").glob("step-*/rng-rank-0.pt")), weights_only=True)
        for each in (without, probed)
    ]
    assert torch.equal(states[0]["cpu"], states[1]["cpu"])
    lines = [line["step"] for line in probed.metrics() if "probe/phantom-knee-mri-2d/knn_auc" in line]
    assert lines == [2, 4, STEPS]
    # What the network saw is drawn at the first step of each, and with every probe; so are the embeddings.
    drawn = [(each.out, each.out.rglob("*.png")) for each in (without, probed)]
    figures = [sorted(path.relative_to(out).as_posix() for path in paths) for out, paths in drawn]
    first, probes = "figures/views/step-00000001.png", [f"step-{step:08d}.png" for step in lines]
    assert figures[0] == [first]
    assert figures[1] == [
        *(f"figures/embeddings/phantom-knee-mri-2d/{name}" for name in probes),
        first,
        *(f"figures/views/{name}" for name in probes),
    ]


@pytest.mark.usefixtures("process_group")
def test_what_is_logged_is_what_the_bundle_gives(shards: Path, tmp_path: Path, cache: Cache) -> None:
    found = run_of(shards, tmp_path / "out", 100).metrics()[-1]
    backbone = load_bundle(tmp_path / "out" / "bundle").backbone
    embedded, labels = [], []
    for split in ("train", "val"):
        records = (dataset := ShardedDataset(shards, split)).read(np.arange(len(dataset)))
        task_B = np.full(len(records), int(Task.self_supervised))
        known = Metadata(*map(torch.from_numpy, (records.organ_B, records.modality_B, task_B)))
        spacing = torch.from_numpy(records.spacing_mm_BA)
        with torch.no_grad():
            features = backbone.features(normalise(torch.from_numpy(records.stacked)), known, spacing)
        embedded.append(features.embedding_BD.numpy())
        labels.append((records.label_BL == np.arange(3)).astype(np.int64))
    expected = probe_scores(embedded[0], labels[0], embedded[1], labels[1], 20, exclusive=True)
    for name, value in expected.items():
        assert found[f"probe/phantom-knee-mri-2d/{name}"] == pytest.approx(value, abs=2e-3), name
    assert 0 < found["probe/seconds"] < 60


def probed_on_ranks(rank: int, world_size: int, shards: Path, folder: Path) -> list[dict[str, float]]:
    class Noted(GroupRuntime):
        lines: list[dict[str, float]] = []

        def report(self, metrics: Any, step: int) -> None:
            super().report(metrics, step)
            self.lines.append(dict(metrics))

    content = document(shards, folder, schedule={"max_steps": 2}, optimizer={"lr": 1e-12})
    content["probes"] = {"datasets": [{"path": str(shards)}], "every_steps": 1}
    noted = Noted()
    assert run(PretrainConfig.model_validate(content), noted)
    return noted.lines


@pytest.mark.usefixtures("process_group")
@pytest.mark.slow
def test_ranks_embed_together_and_all_hear_the_same(shards: Path, tmp_path: Path) -> None:
    lines = run_ranks(probed_on_ranks, 2, shards, tmp_path / "two")
    assert untimed(lines[0]) == untimed(lines[1])
    assert [sorted(line) for line in lines[0]] == [sorted(lines[0][0])] * 2
    alone = probed_on_ranks(0, 1, shards, tmp_path / "one")
    for name, value in alone[0].items():
        if name.startswith("probe/") and name != "probe/seconds":
            assert lines[0][0][name] == pytest.approx(value, abs=5e-3), name


@pytest.mark.usefixtures("process_group")
@pytest.mark.slow
def test_a_run_may_be_resumed_with_other_probes(shards: Path, tmp_path: Path) -> None:
    content = document(shards, tmp_path / "out", schedule={"max_steps": 4}, model={"kwargs": KWARGS})
    assert run(PretrainConfig.model_validate(content), GroupRuntime(stop_after=2)) is None
    content["probes"] = {"datasets": [{"path": str(shards)}], "every_steps": 1}
    assert run(PretrainConfig.model_validate(content), GroupRuntime(), resume=True)
    plain = run_of(shards, tmp_path / "plain", None, schedule={"max_steps": 4})
    assert (tmp_path / "out/bundle/model.safetensors").read_bytes() == (
        plain.out / "bundle/model.safetensors"
    ).read_bytes()


def test_the_nearest_neighbours_vote_as_those_of_fine_tuning_do() -> None:
    generator = np.random.default_rng(0)
    fit_ND, score_MD = generator.normal(size=(90, 12)), generator.normal(size=(40, 12))
    label_N1 = np.arange(90)[:, None] % 3
    expected = knn_probe(fit_ND, label_N1, score_MD, create_target("multiclass", ["a", "b", "c"]), k=7)
    told = nearest(fit_ND, (label_N1 == np.arange(3)).astype(int), score_MD, 7)
    np.testing.assert_allclose(told, expected.probabilities, rtol=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_labels_that_follow_from_the_embedding_are_told_and_those_drawn_by_lot_are_not(exclusive: bool) -> None:
    generator = np.random.default_rng(1)
    points = generator.normal(size=(400, 6))
    true, lot = points[:, :3], generator.normal(size=(400, 3))
    as_classes = (lambda x: (x == x.max(axis=1, keepdims=True)) * 1) if exclusive else (lambda x: (x > 0) * 1)
    for values, low, high in ((true, 0.95, 1.0), (lot, 0.35, 0.65)):
        classes = as_classes(values)
        found = probe_scores(points[:200], classes[:200], points[200:], classes[200:], 20, exclusive)
        assert low < found["linear_auc"] <= high and set(found) >= {"knn_auc", "linear_auc"}
        assert ("linear_accuracy" in found) is exclusive


def test_a_label_that_no_image_to_fit_on_has_is_told_of_none() -> None:
    generator = np.random.default_rng(2)
    points = generator.normal(size=(60, 4))
    labels = np.stack([points[:, 0] > 0, np.arange(60) > 40, np.ones(60)], axis=1).astype(int)
    with warnings.catch_warnings(action="error"):
        told = linear(points[:40], labels[:40], points[40:], exclusive=False)
    assert (told[:, 1] == 0).all() and (told[:, 2] == 1).all()
    assert mean_auc(labels[40:, :1], told[:, :1]) > 0.9


def test_the_area_leaves_out_classes_that_are_not_there() -> None:
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    told = np.array([[0.2, 0.8, 0.0], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0]])
    expected = np.mean([roc_auc_score([1, 0, 1], [0.2, 0.5, 0.9]), roc_auc_score([0, 1, 0], [0.8, 0.4, 0.1])])
    assert mean_auc(truth, told) == pytest.approx(float(expected)) and math.isnan(mean_auc(truth[:1], told[:1]))


def test_embeddings_that_are_no_numbers_have_no_score() -> None:
    broken = np.full((4, 2), np.nan)
    found = probe_scores(broken, np.eye(2)[[0, 1, 0, 1]], broken, np.eye(2)[[0, 1, 0, 1]], 2, exclusive=True)
    assert len(found) == 4 and all(math.isnan(value) for value in found.values())


def test_one_split_is_cut_in_two_by_subject(shards: Path, cache: Cache) -> None:
    fit, score = labelled_images(ProbedConfig(path=str(shards), fit="train", score="train"), 1000, cache)
    assert not set(fit.subject_N.tolist()) & set(score.subject_N.tolist())
    assert sorted([*fit.index_N, *score.index_N]) == list(range(len(ShardedDataset(shards, "train"))))
    assert len(score.index_N) > 20
    few, others = labelled_images(ProbedConfig(path=str(shards)), 10, cache)
    assert not set(few.subject_N.tolist()) & set(others.subject_N.tolist())
    assert len(few.index_N) == 10 and few.index_N.tolist() == sorted(few.index_N.tolist())


@pytest.fixture(scope="session")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = toy_source({"train": 12, "val": 6})
    folder = tmp_path_factory.mktemp("shards") / "one-class"
    write_dataset(Listed([replace(each, label=np.array([0])) for each in source.samples], source.card), folder)
    return folder


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = toy_source({"train": 12, "val": 6})
    samples = [replace(each, label=np.array([0.5]), task=Task.regression) for each in source.samples]
    card = source.card.model_copy(update={"task": "regression", "classes": {}})
    folder = tmp_path_factory.mktemp("shards") / "numbers"
    write_dataset(Listed(samples, card), folder)
    return folder


def test_what_cannot_be_probed_on_is_refused_before_training(
    shards: Path, one_class: Path, numbers: Path, tmp_path: Path
) -> None:
    def refused(probes: Any) -> str:
        content = document(shards, tmp_path / "out") | {"probes": probes}
        with pytest.raises((MedformerError, ValueError)) as error:
            check(PretrainConfig.model_validate(content), 1, resume=False)
        return str(error.value)

    test = refused({"datasets": [{"path": str(shards), "score": "test"}]})
    assert "the test split is not looked at while a network is trained; expected train or val" in test
    assert "expected train or val" in refused({"datasets": [{"path": str(shards), "fit": "all"}]})
    assert "given twice" in refused({"datasets": [{"path": str(shards)}] * 2})
    assert "are of one class" in refused({"datasets": [{"path": str(one_class)}]})
    assert "labels of a regression task; expected a class" in refused({"datasets": [{"path": str(numbers)}]})
    assert "nowhere" in refused({"datasets": [{"path": str(tmp_path / "nowhere")}]})
    assert not (tmp_path / "out").exists()
