"""Backforward against autograd at the mixed point, closed forms and torch's own SGD."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import ConfigError, TrainingError
from finetune.analysis.backforward import Backforward
from finetune.analysis.layers import layers_in_order


def mlp(depth: int = 4, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    widths = [6, *[5] * (depth - 1), 3]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1]).double()


def convolutions(between: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), between(), nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3),
    ).double()  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "relu": partial(mlp, 3, nn.ReLU),
    "convolutions": partial(convolutions, nn.Identity),
    "batch norm": partial(convolutions, partial(nn.BatchNorm2d, 4)),
    "layer norm": partial(convolutions, partial(nn.LayerNorm, (4, 2, 3))),
    "dropout": partial(convolutions, partial(nn.Dropout, 0.3)),
}


def batch(count: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(count, 6, dtype=torch.float64, generator=generator), torch.arange(count) % 3


def made(kind: str = "mlp", **sgd: float | bool) -> tuple[nn.Module, Backforward, Callable[[], Tensor]]:
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    inputs, labels = batch()
    blocks = layers_in_order(network, lambda: network(inputs))
    optimizer = partial(torch.optim.SGD, **{"lr": 0.3, **sgd})  # type: ignore[arg-type]
    return network, Backforward(network, blocks, optimizer), lambda: F.cross_entropy(network(inputs), labels)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    inputs, labels = batch()
    torch.manual_seed(3)
    F.cross_entropy(network(inputs), labels).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_gradient_of_each_layer_is_that_of_autograd_at_the_mixed_point(kind: str) -> None:
    network, backforward, loss_of = made(kind)
    old = copy.deepcopy(network)
    torch.manual_seed(3)
    backforward.step(loss_of)
    new = dict(network.named_parameters())
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert len(backforward.blocks) >= 3
    for number, block in enumerate(backforward.blocks):
        mixed = copy.deepcopy(old)
        moved = {names[parameter] for earlier in backforward.blocks[:number] for parameter in earlier}
        with torch.no_grad():
            for name, parameter in mixed.named_parameters():
                if name in moved:
                    parameter.copy_(new[name])
        expected, stale = gradients(mixed), gradients(copy.deepcopy(old))
        # At the weights before the step the gradient is another one, but for the first layer.
        assert (max(float((expected[names[p]] - stale[names[p]]).abs().max()) for p in block) > 1e-4) == (number > 0)
        for parameter in block:
            name = names[parameter]
            assert parameter.grad is not None and (parameter.grad - expected[name]).abs().max() < 1e-12
            moved_to = mixed.get_parameter(name) - 0.3 * expected[name]
            assert torch.allclose(parameter, moved_to, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "sgd",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}],
    ids=["plain", "momentum", "nesterov"],
)
def test_one_layer_is_sgd_bit_for_bit(sgd: dict[str, float | bool]) -> None:
    inputs, labels = batch()
    networks = [nn.Linear(6, 3), nn.Linear(6, 3)]
    networks[1].load_state_dict(networks[0].state_dict())
    inputs = inputs.float()
    blocks = layers_in_order(networks[0], lambda: networks[0](inputs))
    backforward = Backforward(networks[0], blocks, partial(torch.optim.SGD, lr=0.3, **sgd))  # type: ignore[arg-type]
    plain = torch.optim.SGD(networks[1].parameters(), lr=0.3, **sgd)  # type: ignore[arg-type]
    for _ in range(5):
        backforward.step(lambda: F.cross_entropy(networks[0](inputs), labels))
        plain.zero_grad()
        F.cross_entropy(networks[1](inputs), labels).backward()
        plain.step()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_all_layers_in_one_block_are_sgd_bit_for_bit_with_its_running_statistics() -> None:
    torch.manual_seed(0)
    network = NETWORKS["batch norm"]()
    other = copy.deepcopy(network)
    inputs, labels = batch()
    backforward = Backforward(network, [list(network.parameters())], partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    plain = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        backforward.step(lambda: F.cross_entropy(network(inputs), labels))
        plain.zero_grad()
        F.cross_entropy(other(inputs), labels).backward()
        plain.step()
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_each_block_has_the_momentum_nesterov_and_weight_decay_of_torch() -> None:
    _, backforward, loss_of = made("mlp", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    last = backforward.blocks[-1][0]
    value, velocity = last.detach().clone(), torch.zeros_like(last)
    for _ in range(4):
        backforward.step(loss_of)
        assert last.grad is not None
        gradient = last.grad + 0.01 * value
        velocity = 0.9 * velocity + gradient
        value = value - 0.1 * (gradient + 0.9 * velocity)
        assert torch.allclose(last, value, rtol=0, atol=1e-12)


def test_the_distance_from_sgd_is_of_second_order_in_the_step() -> None:
    rates = np.geomspace(1e-4, 1e-1, 7)
    distances = []
    for rate in rates:
        network, backforward, loss_of = made("mlp", lr=float(rate))
        plain = copy.deepcopy(network)
        backforward.step(loss_of)
        inputs, labels = batch()
        F.cross_entropy(plain(inputs), labels).backward()
        torch.optim.SGD(plain.parameters(), lr=float(rate)).step()
        pairs = zip(network.parameters(), plain.parameters(), strict=True)
        distances.append(float(sum((one - other).detach().square().sum() for one, other in pairs)) ** 0.5)
    slope = np.polyfit(np.log(rates), np.log(distances), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_two_linear_layers_take_the_step_of_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    x_DN, y_KN = generator.standard_normal((6, 20)), generator.standard_normal((2, 20))
    first_HD, second_KH = generator.standard_normal((4, 6)), generator.standard_normal((2, 4))
    network = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(first_HD))
        network[1].weight.copy_(torch.from_numpy(second_KH))
    inputs, targets = torch.from_numpy(x_DN.T), torch.from_numpy(y_KN.T)
    backforward = Backforward(network, [[network[0].weight], [network[1].weight]], partial(torch.optim.SGD, lr=0.05))
    loss = backforward.step(lambda: (network(inputs) - targets).square().sum() / 40)
    assert loss == pytest.approx(np.square(second_KH @ first_HD @ x_DN - y_KN).sum() / 40)
    first_HD = first_HD - 0.05 * second_KH.T @ (second_KH @ first_HD @ x_DN - y_KN) @ x_DN.T / 20
    hidden_HN = first_HD @ x_DN
    second_KH = second_KH - 0.05 * (second_KH @ hidden_HN - y_KN) @ hidden_HN.T / 20
    assert np.allclose(network[0].weight.detach(), first_HD, rtol=0, atol=1e-12)
    assert np.allclose(network[1].weight.detach(), second_KH, rtol=0, atol=1e-12)


def test_a_step_moves_running_statistics_once_by_the_batch_as_the_old_weights_see_it() -> None:
    network, backforward, loss_of = made("batch norm")
    other = copy.deepcopy(network)
    backforward.step(loss_of)
    other(batch()[0])
    for one, expected in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, expected)
    assert int(network.get_buffer("2.num_batches_tracked")) == 1


def test_a_step_draws_as_many_random_numbers_as_one_pass() -> None:
    _, backforward, loss_of = made("dropout")
    torch.manual_seed(5)
    loss_of()
    expected = torch.get_rng_state()
    torch.manual_seed(5)
    backforward.step(loss_of)
    assert torch.equal(torch.get_rng_state(), expected)


def test_a_loss_that_is_not_finite_stops_with_the_layer() -> None:
    network, backforward, _ = made("mlp")
    with pytest.raises(TrainingError, match=r"the loss is nan for layer 0 of 4; try a smaller learning rate"):
        backforward.step(lambda: network(batch()[0]).sum() * torch.nan)


class Reversed(nn.Module):
    """Uses last what it registers first, one layer twice and one not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.middle, self.frozen, self.into = (nn.Linear(4, 4) for _ in range(4))
        self.norm = nn.BatchNorm1d(4)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.middle(self.frozen(self.norm(self.middle(self.into(x))))))
        return out


def test_layers_come_in_the_order_of_their_first_use_and_finding_them_changes_nothing() -> None:
    network = Reversed()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    blocks = layers_in_order(network, lambda: network(torch.randn(8, 4)))
    expected = [network.into, network.middle, network.norm, network.out]
    assert [[id(p) for p in block] for block in blocks] == [[id(p) for p in each.parameters()] for each in expected]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.middle._forward_pre_hooks


def test_shared_unused_doubled_and_foreign_parameters_are_refused_by_name() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match=r"parameter '0.weight' is in blocks 0 and 1; .*write the blocks out"):
        layers_in_order(tied, lambda: tied(torch.randn(2, 4)))
    attention = nn.MultiheadAttention(4, 1)  # Uses the weights of its output layer without calling it.
    with pytest.raises(ConfigError, match=r"parameter 'out_proj.weight' is in no block"):
        layers_in_order(attention, lambda: attention(*[torch.randn(3, 1, 4)] * 3))
    linear = nn.Linear(2, 2)
    sgd = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ConfigError, match=r"parameter 'bias' is in no block"):
        Backforward(linear, [[linear.weight]], sgd)
    with pytest.raises(ConfigError, match=r"block 1 has a parameter that is none of the module's"):
        Backforward(linear, [[linear.weight, linear.bias], [nn.Parameter(torch.ones(1))]], sgd)
    with pytest.raises(ConfigError, match=r"block 0 has no parameters"):
        Backforward(linear, [[], [linear.weight, linear.bias]], sgd)
    with pytest.raises(ConfigError, match=r"the module has no trained parameters"):
        Backforward(nn.ReLU(), [], sgd)
