"""Which optimizers ZeRO may slice, what is decayed, and the schedule as a closed form."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from timm.optim import create_optimizer_v2, list_optimizers

from data_shards.support.errors import ConfigError
from pretrain.config import ModelConfig, OptimizerConfig, PretrainConfig, ScheduleConfig
from pretrain.module import PretrainModule, create_backbone
from pretrain.optim import ELEMENTWISE, create_optimizer, create_schedule, grow_state
from pretrain.sharding import zero_stage

# Bound to a GPU, or in need of a graph of the gradient.
NOT_HERE = {"adahessian"} | {name for name in list_optimizers() if name.startswith(("bnb", "fused"))}


def trained(name: str, parts: int) -> torch.Tensor:
    """A matrix and a vector after six steps, handed over whole or as ``parts`` flat slices of uneven size."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> list[torch.Tensor]:
        whole = [torch.randn(24, 20, generator=generator) * scale, torch.randn(10, generator=generator) * scale]
        if parts == 1:
            return whole
        return [piece for tensor in whole for piece in tensor.flatten().tensor_split([3 * tensor.numel() // 10])]

    parameters = [torch.nn.Parameter(tensor) for tensor in draw(1.0)]
    optimizer = create_optimizer_v2(
        [{"params": parameters, "weight_decay": 0.05}], opt=name, lr=1e-2, weight_decay=0.05
    )
    for _ in range(6):
        for parameter, gradient in zip(parameters, draw(0.1), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(ELEMENTWISE - NOT_HERE))
def test_elementwise_optimizers_do_not_notice_slicing(name: str) -> None:
    torch.testing.assert_close(trained(name, 2), trained(name, 1), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["lars", "lamb", "larc", "muon", "adafactor", "novograd", "mars", "cadamw"])
def test_the_others_do(name: str) -> None:
    assert name not in ELEMENTWISE
    assert not torch.allclose(trained(name, 2), trained(name, 1), rtol=0, atol=1e-6)


def module() -> PretrainModule:
    kwargs = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2}
    return PretrainModule(create_backbone(ModelConfig(kwargs=kwargs)), {"byol": {"hidden": 8, "out": 4}})


def test_zero_with_an_optimizer_of_whole_tensors_is_refused() -> None:
    create_optimizer(module(), OptimizerConfig(name="lars"), 0)
    with pytest.raises(ConfigError, match=r"lars .* ZeRO stage 1 .* flattened"):
        create_optimizer(module(), OptimizerConfig(name="lars"), 1)


def test_trainable_parameters_are_optimised_once_and_vectors_latents_and_queries_not_decayed() -> None:
    network = module()
    optimizer = create_optimizer(network, OptimizerConfig(weight_decay=0.1), 0)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith("objectives.byol.target_") and id(parameter) not in decay
        else:
            exempt = parameter.ndim == 1 or name.startswith(("backbone.query", "backbone.tags", "backbone.latents."))
            assert decay[id(parameter)] == (0.0 if exempt else 0.1), name


def test_unknown_optimizer_names_the_nearest_and_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'adamw'"):
        OptimizerConfig(name="adamww")
    with pytest.raises(ConfigError, match="adamw refuses .* no argument 'momentun'; valid: amsgrad, betas"):
        create_optimizer(module(), OptimizerConfig(kwargs={"momentun": 0.9}), 0)


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_rows_that_a_table_has_gained_are_remembered_as_those_that_were_in_no_batch(name: str) -> None:
    """Also beside a parameter without axes, such as a temperature that is learned."""

    def trained(rows: int, loaded: dict[str, object] | None = None) -> tuple[torch.Tensor, torch.optim.Optimizer]:
        table = torch.nn.Parameter(torch.ones(rows, 2))
        scalar = torch.nn.Parameter(torch.tensor(1.0))
        optimizer = create_optimizer_v2([table, scalar], opt=name, lr=0.1, weight_decay=0.0)
        if loaded is not None:
            optimizer.load_state_dict(loaded)
            grow_state(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            (table[:2].square().sum() * scalar).backward()
            optimizer.step()
        return table, optimizer

    _, before = trained(3)
    grown, _ = trained(5, copy.deepcopy(before.state_dict()))
    again, _ = trained(3, copy.deepcopy(before.state_dict()))
    assert torch.equal(grown[:3], again) and torch.equal(grown[3:], torch.ones(2, 2))


def test_learning_rate_is_a_line_and_a_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = create_schedule(optimizer, ScheduleConfig(warmup_fraction=0.2, final_fraction=0.01), 50)
    for step in range(1, 51):
        schedule.step_update(step)
        cosine = 0.02 + 0.5 * (2.0 - 0.02) * (1 + math.cos(math.pi * step / 50))
        expected = 2.0 * step / 10 if step < 10 else cosine
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), step


@pytest.mark.parametrize("section", [{"stage": 4}, {"stage": "two"}, 2, None])
def test_other_zero_stages_are_refused(section: object) -> None:
    config = PretrainConfig.model_construct(deepspeed={"zero_optimization": section})
    with pytest.raises(ConfigError, match="expected 0, 1, 2 or 3"):
        zero_stage(config)
