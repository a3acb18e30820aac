"""What the studies of DBA and of Backforward rest on: who sees which image, what is compared with what."""

from __future__ import annotations

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.studies import backforward, backforward_runs, dba
from benchmarks.studies.dba_fits import Arm, Length, Terms, choose, fit, objective_of, train
from benchmarks.studies.dba_leak import ChangingStepper
from benchmarks.studies.dba_learner import Vectors
from finetune.analysis.backforward import Backforward
from finetune.steppers.plain import PlainStepper

POOL, GIVEN = 400, 40
LENGTH = Length(looks=3, steps=8)


@pytest.fixture
def digit_N() -> np.ndarray:
    return np.arange(POOL) % 10


@pytest.fixture
def images_N784(digit_N: np.ndarray) -> Tensor:
    """Noise in which a bright row tells the digit."""
    images = torch.randn(POOL, 28, 28, generator=torch.Generator().manual_seed(0))
    images[torch.arange(POOL), torch.from_numpy(digit_N)] += 3
    return images.reshape(POOL, 784)


def rows() -> np.ndarray:
    return np.sort(np.random.default_rng(0).permutation(POOL // 10)[: GIVEN // 10, None] * 10 + np.arange(10), None)


def leak(probability: float, redrawn: bool) -> Arm:
    options = {"probability": probability, "redrawn": redrawn, "least": 8, "most": 24}
    return Arm("leak", ChangingStepper, options, redraws=redrawn)


def trained(arm: Arm, images_N784: Tensor, digit_N: np.ndarray, length: Length = LENGTH) -> tuple[Vectors, dict]:
    objective = objective_of(digit_N)
    learner = Vectors(images_N784, objective.target, seed=1)
    return learner, train(arm, Terms(batch_size=16), learner, objective, rows(), length, 1, lambda: None)


def test_a_batch_size_that_never_changes_is_the_plain_stepper_bit_for_bit(
    images_N784: Tensor, digit_N: np.ndarray
) -> None:
    one, report = trained(leak(0.0, True), images_N784, digit_N)
    other, _ = trained(Arm("plain"), images_N784, digit_N)
    assert report["changes"] == 0
    for mine, plain in zip(one.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(mine, plain)


def test_a_redrawn_subset_has_the_classes_of_the_given_one_and_shows_other_images(
    images_N784: Tensor, digit_N: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    subsets: list[np.ndarray] = []
    sizes: list[int] = []
    drawn, step = ChangingStepper._drawn, PlainStepper.step

    def recorded(self: ChangingStepper) -> np.ndarray:
        subsets.append(drawn(self))
        return subsets[-1]

    def counted(self: ChangingStepper, number: int) -> float:
        sizes.append(self._size)
        return step(self, number)

    monkeypatch.setattr(ChangingStepper, "_drawn", recorded)
    monkeypatch.setattr(PlainStepper, "step", counted)
    learner, report = trained(leak(1.0, True), images_N784, digit_N, Length(1, 60))
    assert report["changes"] == len(subsets) > 10
    for subset in subsets:
        assert len(np.unique(subset)) == GIVEN and (np.bincount(digit_N[subset]) == GIVEN // 10).all()
    assert GIVEN < learner.seen_N.sum() <= len(np.unique(np.concatenate([rows(), *subsets])))
    assert set(sizes) <= {8, 16, 24} and {abs(b - a) for a, b in itertools.pairwise(sizes)} == {0, 8}


def test_a_subset_that_stays_is_all_that_is_seen_though_the_batch_size_changes(
    images_N784: Tensor, digit_N: np.ndarray
) -> None:
    learner, report = trained(leak(1.0, False), images_N784, digit_N, Length(1, 60))
    assert report["changes"] > 10
    assert (np.flatnonzero(learner.seen_N) == rows()).all()


class Thief(PlainStepper):
    """Takes one image too many."""

    name = "thief"

    def begin(self) -> None:
        self.rows = np.append(self.rows, np.setdiff1d(np.arange(POOL), self.rows)[0])
        super().begin()


def test_an_image_that_was_not_given_is_found_out(images_N784: Tensor, digit_N: np.ndarray) -> None:
    test = images_N784[:20], torch.from_numpy(digit_N[:20])
    said = fit(Arm("plain"), images_N784, objective_of(digit_N), rows(), LENGTH, 0, test)
    assert said["distinct"] == said["images"] == GIVEN and len(said["test"]) == LENGTH.looks
    with pytest.raises(AssertionError, match="thief has seen images that are not of the subset"):
        fit(Arm("thief", Thief), images_N784, objective_of(digit_N), rows(), LENGTH, 0, test)


def test_choices_are_made_within_the_subset(images_N784: Tensor, digit_N: np.ndarray) -> None:
    terms = (Terms(1e-6, 0.0, 16), Terms(0.03, 0.0, 16), Terms(1e-5, 0.0, 16))
    arm = Arm("tuned", terms=terms)
    poisoned = torch.full_like(images_N784, torch.nan)
    poisoned[rows()] = images_N784[rows()]
    length = Length(looks=5, steps=8)
    said = choose(arm, poisoned, objective_of(digit_N), rows(), length, 0)
    assert said == choose(arm, images_N784, objective_of(digit_N), rows(), length, 0)
    assert said.terms == terms[1] and 0 <= said.look < 5


def test_looking_does_not_count_as_seeing(images_N784: Tensor, digit_N: np.ndarray) -> None:
    learner = Vectors(images_N784, objective_of(digit_N).target, 0)
    learner.logits(np.arange(10), None)
    assert not learner.seen_N.any()
    learner.logits(np.arange(5), 0)
    assert learner.seen_N.sum() == 5


def test_every_arm_of_a_subset_takes_the_same_steps_and_names_are_told_apart() -> None:
    assert Length.of(600, 300, 3) == Length(100, 15) and Length.of(600, 300, 3).total == 1500
    assert Length.of(100, 300, 3).total == 300  # Not none, as where batches of 128 drop what is left of 100.
    names = [dba.place(dba.Path(), budget, arm.name, 0).name for budget in dba.BUDGETS for arm in dba._ALL]
    assert len(set(names)) == len(names)


def test_the_table_has_what_was_run_and_leaves_out_the_rest() -> None:
    def row(arm: str, seed: int, end: float) -> dict:
        return {
            "arm": arm, "seed": seed, "images": 600, "distinct": 600, "steps": 10, "terms": vars(Terms()),
            "validated": 0, "test": [0.5, 0.9, end], "index_sha256": f"{seed}",
        }  # fmt: skip

    found = {
        ("1 %", arm): [row(arm, seed, end + seed / 100) for seed in range(5)]
        for arm, end in (("SGD", 0.7), (dba.BASELINE, 0.71))
    }
    plain, tuned = dba.accuracies(found).rows
    assert plain[2] == "72.00 [70.04, 73.96]"  # 1.4142 / sqrt(5) * 2.7764 = 1.963
    assert plain[3:6] == ("50.00 [50.00, 50.00]", "90.00 [90.00, 90.00]", "-1.00 [-1.00, -1.00]")
    assert tuned[5] == "-" and plain[8] == tuned[8]
    assert len(dba.draws(found).rows) == 5


def test_steps_of_one_gradient_by_the_optimizers_of_blocks_are_sgd() -> None:
    torch.manual_seed(0)
    network = backforward_runs.mlp(3)
    other = copy.deepcopy(network)
    setting = next(each for each in backforward_runs.SETTINGS if each.momentum)
    trainer = Backforward(network, setting.blocks(network), setting.optimizer(0.03))
    plain = setting.optimizer(0.03)(list(other.parameters()))
    images, digits = torch.randn(16, 784), torch.arange(16) % 10
    for _ in range(4):
        backforward_runs.plain_step(trainer, partial(backforward_runs.loss_of, network, images, digits))
        plain.zero_grad()
        backforward_runs.loss_of(other, images, digits).backward()
        plain.step()
    for mine, expected in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, expected)


def test_convolution_and_normalisation_make_one_block_where_they_are_grouped() -> None:
    apart, together = (
        [[tuple(p.shape) for p in block] for block in setting.blocks(setting.network())]
        for setting in backforward_runs.SETTINGS
        if "BatchNorm" in setting.name
    )
    assert [len(block) for block in apart] == [2] * 5 and [len(block) for block in together] == [4, 4, 2]
    assert [*itertools.chain(*apart)] == [*itertools.chain(*together)]


def test_runs_are_compared_where_both_have_come_to_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backforward, "STEPS", 3 * backforward_runs.EVERY)

    def run(losses: list[float], norms: list[float]) -> dict:
        accuracies = [norm / 10 for norm in norms]
        return {"curve": {"training loss": losses, "norm": norms, "held-out accuracy": accuracies}}

    own, plain = run([1.0, math.exp(-2), 0.01], [2.0, 4.0, 9.0]), run([1.0, 0.5, math.exp(-1)], [1.0, 1.5, 2.0])
    norms, accuracies = backforward.at_equal_loss(own, plain)
    # Both have come to exp(-1): one half way between its first two records, the other with its third.
    assert norms == pytest.approx(3.0 / 2.0) and accuracies == pytest.approx((3.0 - 2.0) / 10)
    assert backforward.at_equal_loss(plain, own)[0] == pytest.approx(2.0 / 3.0)
