"""A run goes on with another number of workers at every ZeRO stage below 3, and no number of its state is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pretrain.checkpoint import ENGINE_TAG, CheckpointStore
from pretrain.reshard import cut, own_part, read_parts
from tests.pretrain.ranks import run_ranks
from tests.pretrain.reshard_ranks import STAGES, leg
from tests.pretrain.runs import Run, relative_difference

MASTERS = "single_partition_of_fp32_groups"


@pytest.mark.parametrize("lengths", [(5, 5, 2), (4, 4, 4), (12,), (1, 0, 11)])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16])
def test_a_cut_is_that_of_the_whole_with_zeros_behind_it(lengths: tuple[int, ...], workers: int) -> None:
    whole = torch.arange(1.0, 13.0)
    length = -(-len(whole) // workers) + 1
    padded = torch.cat([whole, torch.zeros(workers * length - len(whole))])
    for rank, expected in enumerate(padded.split(length)):
        assert torch.equal(cut(whole.split(lengths), rank * length, (rank + 1) * length), expected)


@pytest.fixture(scope="module")
def changed(colour_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 to 4 on two workers, 5 to 7 on one, 8 to 10 on two, at every stage."""
    folder = tmp_path_factory.mktemp("changed")
    assert run_ranks(leg, 2, colour_shards, folder, 4) == [[4], [4]]
    assert run_ranks(leg, 1, colour_shards, folder, 3) == [[6, 7]]
    assert run_ranks(leg, 2, colour_shards, folder, None) == [[10], [10]]
    return folder


@pytest.fixture(scope="module")
def unbroken(colour_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steps on two workers."""
    folder = tmp_path_factory.mktemp("whole")
    run_ranks(leg, 2, colour_shards, folder, None)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_workers_then_one_then_two_follow_the_unbroken_run(changed: Path, unbroken: Path, stage: int) -> None:
    found, expected = (Run(folder, folder / f"stage-{stage}") for folder in (changed, unbroken))
    assert [line["step"] for line in found.metrics()] == list(range(1, 11))
    for mine, theirs in zip(found.metrics(), expected.metrics(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4), mine["step"]
        assert mine["lr"] == theirs["lr"]
    assert relative_difference(found.weights(), expected.weights()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_state_that_was_cut_anew_and_back_is_bit_for_bit_what_it_was(unbroken: Path, stage: int) -> None:
    newest = CheckpointStore(unbroken / f"stage-{stage}" / "checkpoints").latest()
    assert newest is not None
    before = read_parts(newest.folder / ENGINE_TAG, 2)
    sizes = [len(value["exp_avg"]) for value in before[0]["base_optimizer_state"]["state"].values()]
    assert len(sizes) > 1 and min(sizes) > 100, "there is something to cut"
    parts = before
    for workers in (3, 1, 7, 2):
        # A multiple of twice the workers, as DeepSpeed aligns.
        lengths = [-(-size * 2 // (2 * workers)) * 2 for size in sizes]
        parts = [own_part(parts, rank, lengths if workers != 2 else sizes) for rank in range(workers)]
    for found, expected in zip(parts, before, strict=True):
        pairs = list(zip(tensors(found), tensors(expected), strict=True))
        assert len(pairs) >= 3 * len(sizes)
        for mine, theirs in pairs:
            assert torch.equal(mine[: len(theirs)], theirs) and not mine[len(theirs) :].any()


def tensors(part: dict) -> Iterator[Tensor]:
    for state in part["base_optimizer_state"]["state"].values():
        yield from (state[name] for name in sorted(state) if state[name].ndim)
    yield from part[MASTERS]
