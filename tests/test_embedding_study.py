"""What the study of the embedding rests on: arms that differ in it alone, their scores, and what is read where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.studies import embedding, embedding_tables, nominal
from benchmarks.studies.embedding_arms import ARMS, POOLED, QUERY, Arm
from benchmarks.studies.embedding_reads import WHERE, reads_of
from benchmarks.studies.nominal import SIMCLR, Ground, Reading, collected, few_label_scores
from benchmarks.studies.runs import VIEWS
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.fit.features import summaries
from pretrain.module import PretrainModule

SIZE = (12, 16)


def cases(count: int, seed: int = 0) -> Cases:
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 2)[:, None]
    pixels = random.integers(256, size=(count, 1, *SIZE), dtype=np.uint8)
    return Cases("drawn", pixels, labels, Task.binary, {0: "no", 1: "yes"}, np.arange(count).astype(str))


@pytest.mark.parametrize("arm", ARMS, ids=[arm.name for arm in ARMS])
def test_an_arm_changes_the_embedding_alone_and_trains_what_it_adds(arm: Arm) -> None:
    network, default = arm.fresh(SIZE, 3), QUERY.fresh(SIZE, 3)
    weights = network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in default.state_dict().items())
    images = torch.rand(2, 1, *SIZE) * 2 - 1
    found, expected = (each.features(images, dense=True) for each in (network, default))
    assert torch.equal(found.tokens_BTD, expected.tokens_BTD) and found.embedding_BD.shape == (2, 128)
    assert torch.equal(found.embedding_BD, expected.embedding_BD) == (arm is QUERY)
    (found.embedding_BD * torch.randn(128)).sum().backward()
    added = {name: each for name, each in network.named_parameters() if name not in default.state_dict()}
    assert bool(added) == (arm is not QUERY)
    assert not [name for name, each in added.items() if each.grad is None or not each.grad.any()]


def test_scores_are_of_what_a_draw_left_and_of_the_test_split_only_where_it_is_asked() -> None:
    train, test = cases(240), cases(30, 1)
    random = np.random.default_rng(2)
    labels, noise = train.known_labels.astype(np.float32), random.normal(size=(240, 2)).astype(np.float32)
    found = few_label_scores(
        {"train": train},
        {"told": Reading("linear", {"train": labels + 0.01 * noise}), "noise": Reading("linear", {"train": noise})},
        draws=[0],
    )
    assert found["told"] == {"left": 1.0} and found["noise"].keys() == {"left"}
    assert 0.3 < found["noise"]["left"] < 0.7
    inverted = 1.0 - test.known_labels.astype(np.float32).repeat(2, axis=1)
    features = {"train": labels + 0.01 * noise, "test": inverted}
    assert few_label_scores({"train": train, "test": test}, {"a": Reading("linear", features)}, [0])["a"]["test"] == 0.0


def test_the_mean_of_the_sets_is_taken_seed_by_seed() -> None:
    records = [{"a": {"r": {"left": one}}, "b": {"r": {"left": other}}} for one, other in ((0.5, 1.0), (0.7, 0.7))]
    found = collected(records, "left")
    assert found["a", "r"] == [0.5, 0.7] and found["mean of the four", "r"] == [0.75, pytest.approx(0.7)]


def test_what_is_read_inside_the_network_is_what_fine_tuning_reads() -> None:
    drawn = cases(5)
    module = PretrainModule(QUERY.fresh(SIZE, 0), SIMCLR)
    found, expected = reads_of(module, drawn), summaries(module.backbone, drawn)
    assert list(found) == list(WHERE) and {len(each) for each in found.values()} == {5}
    for name, read in (("embedding", "embedding"), ("mean", "mean"), ("mean, spread", "mean_spread")):
        np.testing.assert_allclose(found[name], expected.read(read), atol=1e-5)
    np.testing.assert_allclose(found["all"], expected.read("embedding_mean_spread"), atol=1e-5)
    assert found["mean, spread, narrow"].shape == found["embedding"].shape == (5, 128)


def test_networks_are_trained_and_scored_once_and_arms_of_a_seed_beside_each_other_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground("planes", ("drawn",), SIZE, 6, 2, 0.002, VIEWS)
    splits = {"drawn": {"train": cases(110)}}
    monkeypatch.setattr(embedding_tables, "GROUNDS", (ground,))
    monkeypatch.setattr(nominal, "BUDGETS", (10,))
    for module in (embedding, embedding_tables):
        monkeypatch.setattr(module, "READS", dict(list(embedding_tables.READS.items())[:2]))
    for seed in (0, 1):
        embedding.train(tmp_path, ground, (QUERY, POOLED), seed, splits)
        for arm in (QUERY, POOLED):
            embedding.score(tmp_path, ground, arm, seed, splits, "left")
    other = tmp_path / "alone"
    embedding.train(other, ground, (POOLED,), 1, splits)
    found, alone = (embedding.network(folder, ground, POOLED, 1).state_dict() for folder in (tmp_path, other))
    assert all(torch.equal(found[name], value) for name, value in alone.items())
    assert not torch.equal(found["backbone.query"], POOLED.fresh(SIZE, 1).query)
    rows = embedding.arms_table(tmp_path).rows
    assert [row[:3] for row in rows] == [("drawn", "query", "2"), ("drawn", POOLED.name, "2")] + [
        ("mean of the four", arm.name, "2") for arm in (QUERY, POOLED)
    ]
    assert rows[0][6] == "-" and not embedding.reads_table(tmp_path).rows and not embedding.test_table(tmp_path).rows
    monkeypatch.setattr(embedding, "pretrain", None)
    monkeypatch.setattr(embedding, "few_label_scores", None)
    embedding.train(tmp_path, ground, (QUERY, POOLED), 0, splits)
    embedding.score(tmp_path, ground, QUERY, 0, splits, "left")
