"""Feature maps on several ranks are normalised as one process normalises the concatenated batch."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.foreign.batchnorm import share_statistics
from pretrain.objectives.teacher import follow, follower
from tests.pretrain.foreign_samples import RESNET
from tests.pretrain.ranks import run_ranks

ROWS = (3, 5)
SIDES = {"resnet18": 40, "acting": 6, "resnet18_3d": 12}


def network(name: str) -> Any:
    model = plain(name).double()
    share_statistics(model)
    return model


def plain(name: str) -> Any:
    torch.manual_seed(0)
    if name == "acting":  # timm's own layer, which applies the activation too
        return nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Flatten())
    return timm.create_model(name, num_classes=0, **RESNET)


def images(name: str) -> Tensor:
    side, axes = SIDES[name], 3 if name.endswith("3d") else 2
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(ROWS), 3, *(side,) * axes, generator=generator, dtype=torch.float64)


def stepped(name: str, own: Tensor, first: int) -> dict[str, Tensor]:
    """Features, gradients and statistics of a training pass; the loss weighs every image differently."""
    model = network(name).train()
    found = model(own)
    weight = torch.arange(1, sum(ROWS) + 1, dtype=torch.float64).sin()[first : first + len(own), None]
    (found.square() * weight).sum().backward()
    gradients = {key: value.grad for key, value in model.named_parameters()}
    return {"features": found.detach(), **gradients, **{key: value.double() for key, value in model.named_buffers()}}


def on_rank(rank: int, world_size: int, names: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    first = sum(ROWS[:rank])
    return {name: stepped(name, images(name)[first : first + ROWS[rank]], first) for name in names}


@pytest.mark.slow
def test_unequal_ranks_are_one_process_on_the_concatenation() -> None:
    ranks = run_ranks(on_rank, 2, tuple(SIDES))
    for name in SIDES:
        alone = stepped(name, images(name), 0)
        parts = [found[name] for found in ranks]
        close = {"rtol": 1e-7, "atol": 1e-9}
        torch.testing.assert_close(torch.cat([part["features"] for part in parts]), alone["features"], **close)
        for key in set(alone) - {"features"}:
            summed = key in dict(network(name).named_parameters())
            found = sum(part[key] for part in parts) if summed else parts[1][key]
            torch.testing.assert_close(found, alone[key], **close)


def test_in_one_process_nothing_changes() -> None:
    for name in SIDES:
        alone, shared = plain(name).train(), network(name).float().train()
        batch = images(name).float()
        assert torch.equal(alone(batch), shared(batch)) and list(alone.state_dict()) == list(shared.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(alone.buffers(), shared.buffers(), strict=True))
        kinds = [type(module) for module in shared.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert kinds and not {nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d} & set(kinds)


def test_a_kind_that_is_not_known_is_named() -> None:
    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(ConfigError, match=r"0 \(Odd\)"):
        share_statistics(nn.Sequential(Odd(3)))


def test_a_teacher_keeps_its_statistics_until_it_follows() -> None:
    model = network("resnet18").train()
    teacher = follower(model)
    before = [buffer.clone() for buffer in teacher.buffers() if buffer.is_floating_point()]
    teacher(images("resnet18"))
    kept = [buffer for buffer in teacher.buffers() if buffer.is_floating_point()]
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
    model(images("resnet18"))
    follow(teacher, model, 0.5)
    now = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    for old, new, found in zip(before, now, kept, strict=True):
        torch.testing.assert_close(found, (old + new) / 2)
