"""Micro-batches: what a step holds in memory, the random numbers of the second forward pass, precision, and whole runs.

That the gradient is that of the whole batch is shown for every objective in ``test_objective_gradients.py``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from data_shards.support.errors import ConfigError
from pretrain.backbone import Medformer
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import OBJECTIVES, Objective, Views
from pretrain.objectives.base import ObjectiveConfig, objective
from pretrain.objectives.chunks import in_chunks, joined
from pretrain.preflight import check
from tests.pretrain.objective_views import document_of, drifting_images, views_of
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import GroupRuntime, Run, document, relative_difference

SIMCLR = {"simclr": {"hidden": 12, "out": 8}}
MODEL = {"kwargs": {"embed_dim": 32, "depth": 3, "num_heads": 2, "latents": 16, "drop_path_rate": 0.5}}
ROWS = 32


def module_and_views(micro_batch: int | None, model: dict[str, Any] | None = None) -> tuple[PretrainModule, Views]:
    config = document_of(SIMCLR, micro_batch, model=model or MODEL)
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    return module, views_of(config, drifting_images(ROWS, (3, 28, 28)))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def step(module: PretrainModule, views: Views) -> None:
    module(views)[0].backward()


def peak_bytes(step: Callable[[], Any]) -> int:
    """The most that a step has in memory at once beyond what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step()
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    events = (event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]")
    return max(itertools.accumulate(event.nbytes() for event in events))


def test_memory_is_that_of_the_micro_batch() -> None:
    whole, some = (peak_bytes(functools.partial(step, *module_and_views(size))) for size in (None, 4))
    assert some < whole / 5, f"{some} of {whole} bytes; an eighth of the images is in the network at once"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_second_forward_pass_has_the_random_numbers_of_the_first(checkpointing: bool) -> None:
    module, views = module_and_views(5, {**MODEL, "grad_checkpointing": checkpointing})
    torch.manual_seed(7)
    loss = module(views)[0]
    after = torch.get_rng_state()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), after), "the backward pass draws nothing"
    found = gradients(module)

    module, views = module_and_views(None)
    backbone, made = module.backbone, []
    torch.manual_seed(7)
    for first in range(0, ROWS, 5):  # chunk by chunk, keeping the graph
        parts = [view.part(slice(first, first + 5)) for view in views.full]
        images = torch.cat([part.images for part in parts])
        made.append(backbone.features(images, joined([part.metadata for part in parts])).embedding_BD.chunk(2))
    views._made[("full", backbone, True, True)] = tuple(torch.cat(column) for column in zip(*made, strict=True))
    module(views)[0].backward()
    for name, expected in gradients(module).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def test_gradients_of_low_precision_are_summed_in_the_precision_of_the_weights() -> None:
    """Sums of many nearly equal numbers in bfloat16 stop growing: 1 cannot be added to 256."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    x_BD = torch.rand(1024, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out_BD = in_chunks(lambda rows: layer(x_BD[rows]), x_BD, 1)
    out_BD.float().sum().backward()
    expected_D = x_BD.bfloat16().double().sum(dim=0)
    assert layer.weight.grad is not None
    error = (layer.weight.grad[0].double() - expected_D).abs().max() / expected_D.max()
    assert error < 1e-5


CHANGES = {"schedule": {"max_steps": 4}, "checkpoint": {"every_steps": 2}}


def run_of(shards: Path, out: Path, micro_batch: int | None, **changes: Any) -> Run:
    content = document(shards, out, **CHANGES | changes)
    content["data"]["micro_batch_size"] = micro_batch
    assert run(PretrainConfig.model_validate(content), GroupRuntime())
    return Run(out, out)


def runs_at_every_stage(rank: int, world_size: int, shards: Path, folder: Path) -> None:
    run_of(shards, folder / "whole", None)
    for stage in (0, 1, 2):
        run_of(shards, folder / str(stage), 3, deepspeed={"zero_optimization": {"stage": stage}})


@pytest.mark.slow
def test_a_run_in_micro_batches_is_the_run_of_whole_batches_at_every_stage(shards: Path, tmp_path: Path) -> None:
    run_ranks(runs_at_every_stage, 2, shards, tmp_path)
    whole = Run(tmp_path, tmp_path / "whole")
    for stage in (0, 1, 2):
        found = Run(tmp_path, tmp_path / str(stage))
        assert relative_difference(found.weights(), whole.weights()) < 1e-5
        for mine, theirs in zip(found.metrics(), whole.metrics(), strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert mine["embedding_std"] == pytest.approx(theirs["embedding_std"], rel=1e-3)


@pytest.mark.usefixtures("process_group")
def test_a_run_that_ran_out_of_memory_goes_on_in_micro_batches(shards: Path, tmp_path: Path) -> None:
    content = document(shards, tmp_path / "out", **CHANGES)
    assert run(PretrainConfig.model_validate(content), GroupRuntime(stop_after=2)) is None
    content["data"]["micro_batch_size"] = 2
    assert run(PretrainConfig.model_validate(content), GroupRuntime(), resume=True)
    whole = run_of(shards, tmp_path / "whole", None)
    assert relative_difference(Run(tmp_path, tmp_path / "out").weights(), whole.weights()) < 1e-5


@pytest.mark.usefixtures("process_group")
def test_bfloat16_in_micro_batches_follows_whole_batches(shards: Path, tmp_path: Path) -> None:
    one, other = (
        run_of(shards, tmp_path / str(size), size, precision="bf16", schedule={"max_steps": 1}).metrics()[0]
        for size in (None, 3)
    )
    for name in ("loss", "grad_norm"):
        assert one[name] == pytest.approx(other[name], rel=0.02), name


@pytest.fixture
def normalising() -> Iterator[str]:
    @objective("normalising")
    class Normalising(Objective):
        """Puts batch normalisation into the network."""

        def __init__(self, backbone: Medformer, config: ObjectiveConfig) -> None:
            super().__init__(backbone, config)
            backbone.norm = nn.BatchNorm1d(backbone.embed_dim)

    yield "normalising"
    del OBJECTIVES["normalising"]


def test_a_network_that_mixes_the_rows_of_a_batch_is_refused_before_training(
    normalising: str, shards: Path, tmp_path: Path
) -> None:
    content = document(shards, tmp_path / "out", objectives={normalising: {}})
    check(PretrainConfig.model_validate(content), 1, resume=False)
    content["data"]["micro_batch_size"] = 3
    with pytest.raises(ConfigError, match=r"data\.micro_batch_size: the network has batch normalisation \(norm\)"):
        check(PretrainConfig.model_validate(content), 1, resume=False)


def test_the_keys_of_deepspeed_for_it_are_answered_with_ours(shards: Path, tmp_path: Path) -> None:
    for key in ("gradient_accumulation_steps", "train_micro_batch_size_per_gpu"):
        with pytest.raises(ValueError, match=r"set by 'data\.micro_batch_size'"):
            PretrainConfig.model_validate(document(shards, tmp_path, deepspeed={key: 2}))
