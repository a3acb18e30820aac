from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError, TrainingError
from finetune.mil.log_sum_exp import GeneralisedLogSumExp
from finetune.mil.pooling import GatedAttention
from finetune.per_sample import Tape, rows_of
from finetune.per_sample.contributions import Outer
from finetune.strategies.low_rank import LowRankLinear
from pretrain.backbone.attention import Attention
from pretrain.backbone.stems import ChannelNorm, InflatedConv
from tests.finetune.per_sample.loop import compare

COUNT = 6


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x.flip(1), x)[0]


def low_rank() -> LowRankLinear:
    layer = LowRankLinear(nn.Linear(8, 5), rank=2, alpha=4.0, dropout=0.0)
    nn.init.normal_(layer.up_OR)
    return layer


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 5), (8,)),
    "linear without bias over tokens": (lambda: nn.Linear(8, 5, bias=False), (7, 8)),
    "linear over tokens, wide": (lambda: nn.Linear(40, 50), (2, 40)),
    "linear over a grid": (lambda: nn.Linear(8, 5), (3, 4, 8)),
    "1D convolution": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
    "2D convolution": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (4, 9, 8)),
    "2D convolution, circular": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", groups=4), (4, 6, 5)),
    "3D convolution": (lambda: nn.Conv3d(2, 4, 3, stride=2, padding=1, groups=2, bias=False), (2, 5, 6, 4)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(4, 3, 2, stride=2), (4, 3, 4)),
    "inflated, plane": (lambda: InflatedConv(3, 5, 3, stride=2), (1, 7, 8)),
    "inflated, volume": (lambda: InflatedConv(3, 5, 3, stride=2), (3, 4, 7, 8)),
    "inflated patches, plane": (lambda: InflatedConv(3, 5, 2, stride=2), (1, 7, 8)),
    "inflated patches, volume": (lambda: InflatedConv(3, 5, 2, stride=2), (3, 4, 7, 8)),
    "LayerNorm": (lambda: nn.LayerNorm(8), (5, 8)),
    "LayerNorm over two axes": (lambda: nn.LayerNorm((5, 8)), (3, 5, 8)),
    "ChannelNorm": (lambda: ChannelNorm(4), (4, 3, 5)),
    "RMSNorm": (lambda: nn.RMSNorm(8), (5, 8)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3, 5)),
    "frozen BatchNorm": (lambda: nn.BatchNorm2d(4).eval(), (4, 3, 5)),
    "self-attention": (lambda: Attention(8, None, 2), (5, 8)),
    "torch's attention": (Attended, (5, 8)),
    "low rank": (low_rank, (5, 8)),
    "gated attention": (lambda: GatedAttention(8, 4), (5, 8)),
    "log-sum-exp": (lambda: GeneralisedLogSumExp((1.0, -2.0)), (5, 3)),
}


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 2], [1, 0, 2, 0, 0, 1]], ids=["samples", "pairs", "mixed"])
@pytest.mark.parametrize("kind", LAYERS)
def test_norms_products_and_means_are_those_of_a_loop_of_single_samples(kind: str, groups: list[int] | None) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = randomised(make())
    images = torch.randn(COUNT, *shape, dtype=torch.float64)

    def losses(samples: list[int]) -> Tensor:
        return layer(images[samples]).flatten(1).sin().square().sum(dim=1)

    compare(layer, losses, COUNT, groups)


def test_rows_of_a_table_are_told_apart_by_sample() -> None:
    torch.manual_seed(0)
    table = randomised(nn.Embedding(7, 4, padding_idx=2))
    ids = torch.randint(0, 7, (COUNT, 5))

    def losses(samples: list[int]) -> Tensor:
        return table(ids[samples]).flatten(1).sin().sum(dim=1)

    compare(table, losses, COUNT)


class Shared(nn.Module):
    """One layer used twice, one weight in two layers, and dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
        self.tied, self.conv = nn.Linear(6, 6), nn.Conv1d(6, 6, 1)
        self.tied.weight = self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + self.norm(self.layer(x)).tanh()
            x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.tied(x)


def test_all_uses_of_a_shared_weight_are_added_before_the_norm() -> None:
    torch.manual_seed(0)
    shared = randomised(Shared())
    x = torch.randn(COUNT, 4, 6, dtype=torch.float64)
    compare(shared, lambda samples: shared(x[samples]).square().flatten(1).sum(dim=1), COUNT, [0, 0, 1, 2, 2, 2])


def test_several_passes_add_up_whether_or_not_their_activations_are_kept() -> None:
    torch.manual_seed(0)
    shared = randomised(Shared())
    x = torch.randn(COUNT, 4, 6, dtype=torch.float64)
    once = Tape(shared, 3)
    with once.recording([0, 0, 1, 1, 2, 2]):
        once.backward(shared(x).square().flatten(1).sum(dim=1), 1.0)
    twice = Tape(shared, 3)
    for part, groups in ((slice(0, 3), [0, 0, 1]), (slice(3, 6), [1, 2, 2])):
        with twice.recording(groups):
            twice.backward(shared(x[part]).square().flatten(1).sum(dim=1), 0.5)
        twice.settle()
    for one, other in zip(once.layers(), twice.layers(), strict=True):
        torch.testing.assert_close(one.gram(), other.gram(), rtol=1e-9, atol=1e-12)


def test_studies_are_rows_of_their_cases() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    x, owner = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0, 2, 2])

    def losses(samples: list[int]) -> Tensor:
        rows = torch.cat([(owner == sample).nonzero()[:, 0] for sample in samples])
        cases = torch.tensor([samples.index(int(case)) for case in owner[rows]])
        with rows_of(cases.numpy()):
            outputs = layer(x[rows])
        return outputs.new_zeros(len(samples), 3).index_add(0, cases, outputs).square().sum(dim=1)

    compare(layer, losses, 3)


def test_the_form_that_takes_fewer_products_is_chosen_by_shapes() -> None:
    def outer(rows: int, inputs: int, outputs: int, groups: int) -> bool:
        given = torch.zeros(rows, inputs), torch.zeros(rows, outputs), torch.arange(rows) * groups // rows
        return Outer(*given).cheaper_by_rows(groups)

    assert outer(64, 784, 256, 64)  # one vector to a sample
    assert not outer(64 * 50, 128, 128, 64)  # many tokens, narrow
    assert outer(4 * 8, 1024, 1024, 4)  # few tokens, wide


def test_dropout_is_drawn_once_and_the_recorded_pass_gives_what_the_plain_one_gives() -> None:
    network = nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(40, 1))
    x = torch.randn(COUNT, 6)
    torch.manual_seed(3)
    plain = network(x)
    plain.sum().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    tape = Tape(network, 2)
    torch.manual_seed(3)
    with tape.recording([0, 0, 0, 1, 1, 1]):
        recorded = network(x)
        tape.backward(recorded[:, 0])
    torch.testing.assert_close(recorded, plain)
    ones = torch.ones(2)
    found = {key: value for layer in tape.layers() for key, value in layer.weighted(ones).items()}
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(found[parameter], gradient)
    assert "forward" not in vars(network[0])  # it is as it was


def test_only_what_is_watched_gets_gradients() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    tape = Tape(network, 2, only=network[2].parameters())
    with tape.recording([0, 0, 1]):
        tape.backward(network(torch.randn(3, 4))[:, 0])
    assert [layer.name for layer in tape.layers()] == ["2"]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


TRANSPARENT = sorted(set(LAYERS) - {"transposed convolution", "torch's attention", "gated attention", "log-sum-exp",
                                    "inflated, plane", "inflated, volume", "inflated patches, plane",
                                    "inflated patches, volume", "self-attention"})  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_a_transparent_layer_gives_its_ordinary_gradients_bit_for_bit_beside_those_by_sample(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = randomised(make()).float()
    images = torch.randn(COUNT, *shape, requires_grad=True)
    tape = Tape(layer, COUNT, attached=True)
    assert tape.transparent == (kind in TRANSPARENT)
    if not tape.transparent:
        return
    layer(images).flatten(1).sin().sum(dim=1).mean().backward()
    plain = [images.grad, *(parameter.grad for parameter in layer.parameters())]
    images.grad = None
    layer.zero_grad()
    with tape.recording(torch.arange(COUNT)):
        tape.backward(layer(images).flatten(1).sin().sum(dim=1), 1.0)
    recorded = [images.grad, *(parameter.grad for parameter in layer.parameters())]
    for one, other in zip(plain, recorded, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    for found in tape.layers():
        for parameter, total in found.weighted(torch.ones(COUNT)).items():
            torch.testing.assert_close(total, parameter.grad, rtol=1e-4, atol=1e-5)


def test_what_has_no_gradient_by_sample_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"layer 1 \(BatchNorm1d\) normalises by statistics of the batch.*freeze it"):
        Tape(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), 2)
    with pytest.raises(ConfigError, match=r"layer 0 \(LSTM\): there is no rule for gradients by sample; .*Linear"):
        Tape(nn.Sequential(nn.LSTM(3, 3)), 2)
    with pytest.raises(ConfigError, match="need batch_first=True"):
        Tape(nn.Sequential(nn.MultiheadAttention(4, 2)), 2)
    with pytest.raises(ConfigError, match="not supported with max_norm"):
        Tape(nn.Embedding(4, 2, max_norm=1.0), 2)


class Flattens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(0, 1)).unflatten(0, x.shape[:2]).flatten(1).sum(dim=1)


class Aside(Flattens):
    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) @ self.inner.weight).flatten(1).sum(dim=1)


def test_a_layer_that_sees_other_rows_than_samples_or_a_weight_used_aside_is_refused() -> None:
    x = torch.randn(COUNT, 3, 4)
    for network, said in ((Flattens(), "inner (Linear) has 18 rows along its first axis, and there are 6 samples"),
                          (Aside(), "layer inner uses its weight (4, 4) where no rule")):  # fmt: skip
        tape = Tape(network, 2)
        with pytest.raises(ConfigError, match=re.escape(said)), tape.recording([0, 0, 0, 1, 1, 1]):
            tape.backward(network(x))
        assert "forward" not in vars(network.inner)


def test_a_reduced_loss_and_one_that_is_not_finite_are_refused() -> None:
    layer, x = nn.Linear(4, 1), torch.randn(COUNT, 4)
    tape = Tape(layer, 2)
    with tape.recording([0, 0, 0, 1, 1, 1]):
        with pytest.raises(ConfigError, match="the loss is reduced already; one number for each of the 6 cases"):
            tape.backward(layer(x).mean())
        with pytest.raises(TrainingError, match="the loss of a case is nan"):
            tape.backward(layer(x)[:, 0] * torch.tensor([1, 1, torch.nan, 1, 1, 1]))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_by_sample_on_a_device_are_those_of_a_loop(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = randomised(make()).cuda()
    images = torch.randn(COUNT, *shape, dtype=torch.float64, device="cuda")

    def losses(samples: list[int]) -> Tensor:
        return layer(images[samples]).flatten(1).sin().square().sum(dim=1)

    compare(layer, losses, COUNT, [1, 0, 2, 0, 0, 1])
