"""ZeRO 3: weights split over the ranks change how a run is computed, not what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_shards.support.errors import CheckpointError
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.reshard_split import cut_each, own_part
from pretrain.saving.snapshot import read_tensors
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import GroupRuntime, Run, relative_difference
from tests.pretrain.zero3_ranks import STEPS, STOP, whole_and_split, zero3_document

_TEACHER = "objectives.byol.target_backbone."


@pytest.fixture(scope="module")
def folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero3")
    run_ranks(whole_and_split, 2, shards, folder)
    return folder


def bundle(out: Path) -> dict[str, Tensor]:
    return load_file(out / "bundle" / "model.safetensors")


def files(out: Path, step: int, name: str) -> list[dict[str, Tensor]]:
    engine = out / "checkpoints" / f"step-{step:08d}-attempt-0" / "engine"
    return [read_tensors(path) for path in sorted(engine.glob(name))]


def test_the_losses_and_weights_are_those_of_stage_0(folder: Path) -> None:
    plain = Run(folder, folder / "stage-0")
    for name in ("stage-3", "stopped", "default"):
        split = Run(folder, folder / name)
        assert relative_difference(bundle(split.out), bundle(plain.out)) < 1e-6, name
        assert [line["step"] for line in split.metrics()] == list(range(1, STEPS + 1)), name
        for found, expected in zip(split.metrics(), plain.metrics(), strict=True):
            for key in ("loss", "byol/loss", "embedding_std", "effective_rank"):
                assert found[key] == pytest.approx(expected[key], rel=1e-5), (name, key, expected["step"])
            assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4), (name, expected["step"])


def test_a_stop_and_a_resumption_leave_the_same_bits(folder: Path) -> None:
    stopped, whole = ((folder / name / "bundle/model.safetensors").read_bytes() for name in ("stopped", "stage-3"))
    assert stopped == whole


def test_the_bundle_holds_every_weight_and_buffer_and_timm_loads_it_strictly(folder: Path) -> None:
    tensors = bundle(folder / "stage-3")
    model = timm.create_model(f"local-dir:{folder / 'stage-3' / 'bundle'}", pretrained=False)
    model.load_state_dict(tensors, strict=True)
    assert all(tensor.numel() for tensor in tensors.values())
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in bundle(folder / "stage-0").items()
    }


def test_the_moving_average_moves_on_every_rank_and_is_that_of_stage_0(folder: Path) -> None:
    before, after = (
        [each["frozen_param_fragments"] for each in files(folder / "stage-3", step, "*_model_states.pt")]
        for step in (STOP, STEPS)
    )
    assert len(before) == len(after) == 2
    (plain,) = (each["module"] for each in files(folder / "stage-0", STEPS, "*_model_states.pt"))
    names = [name for name in after[0] if name.startswith(_TEACHER) and "depth" not in name]
    assert len(names) > 20
    for name in names:
        whole = torch.cat([rank[name] for rank in after])[: plain[name].numel()].view(plain[name].shape)
        torch.testing.assert_close(whole, plain[name], rtol=1e-5, atol=1e-6)
    for first, last in zip(before, after, strict=True):
        moved = [name for name in names if not torch.equal(first[name], last[name])]
        assert len(moved) > 0.9 * len(names), "a teacher that stands still on a rank learns nothing"


@pytest.mark.usefixtures("process_group")
def test_a_run_goes_on_with_another_number_of_workers(shards: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "stopped", out)
    shutil.rmtree(out / "bundle")
    shutil.rmtree(out / "checkpoints" / f"step-{STEPS:08d}-attempt-0")
    runtime = GroupRuntime()
    assert run(PretrainConfig.model_validate(zero3_document(shards, out, 3)), runtime, resume=True)
    assert runtime.reported == list(range(STOP + 1, STEPS + 1)) and runtime.world_size == 1
    assert relative_difference(bundle(out), bundle(folder / "stage-3")) < 1e-5


@pytest.mark.parametrize("old, new", [(1, 2), (2, 1), (2, 3), (3, 2), (4, 3), (5, 1)])
def test_parameters_are_cut_anew_without_a_number_changed(old: int, new: int) -> None:
    counts = [7, 1, 12, 5, 2]
    values = [torch.arange(count) + 100.0 * place for place, count in enumerate(counts)]

    def laid_out(rank: int, workers: int) -> Tensor:
        padded = [torch.cat([each, torch.zeros(-len(each) % workers)]).view(workers, -1) for each in values]
        return torch.cat([each[rank] for each in padded])

    pieces = [laid_out(rank, old) for rank in range(old)]
    for rank in range(new):
        assert torch.equal(cut_each(pieces, counts, rank, new), laid_out(rank, new))


def test_weights_that_are_grouped_otherwise_are_refused() -> None:
    part = {"fp32_flat_groups": [torch.zeros(5)], "optimizer_state_dict": {"state": {}, "param_groups": []}}
    with pytest.raises(CheckpointError, match="grouped otherwise"):
        own_part([part, part], [[3], [4]], 0, 1)
