"""The runs of the study of Backforward: networks, arms, and what is recorded of each, kept in a file of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.studies import mnist
from data_shards.support.errors import TrainingError
from data_shards.support.files import write_json
from finetune.analysis.backforward import Backforward
from finetune.analysis.layers import Block, layers_in_order
from finetune.steppers.base import cut, permutations

SEEDS = range(5)
STEPS = 300
SHORT = 30
"""Steps of Backforward where it only begins or ends a run."""
EVERY = 30
BATCH = 64
WIDTH = 64
RATES = (0.03, 0.1, 0.3, 1.0)
ARMS = ("SGD", "Backforward", "Backforward first", "Backforward last")
PER_CLASS = {"training": 200, "choice": 100, "held out": 200}
CURVES = ("training loss", "training accuracy", "choice accuracy", "held-out loss", "held-out accuracy", "norm")

Run = dict[str, Any]


def mlp(layers: int, width: int = WIDTH) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    widths = [784, *[width] * (layers - 1), 10]
    modules = [
        module for before, after in itertools.pairwise(widths) for module in (nn.Linear(before, after), nn.ReLU())
    ]
    return started(nn.Sequential(*modules[:-1]))


def convolutions(norm: bool) -> nn.Sequential:
    """Two convolutions of stride 2, of 8 and 16 channels, and a linear layer."""
    modules: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
    for before, after in ((1, 8), (8, 16)):
        modules += [nn.Conv2d(before, after, 3, 2, 1), *[nn.BatchNorm2d(after)] * norm, nn.ReLU()]
    return started(nn.Sequential(*modules, nn.Flatten(), nn.Linear(16 * 49, 10)))


def started(network: nn.Sequential) -> nn.Sequential:
    """With the weights of He et al., ICCV 2015, and no biases: with those of torch eight layers do not learn here."""
    for module in network:
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained.

    Attributes:
        name: as tables show it.
        network: makes it.
        grouped: how many of the layers found make each block; None for each by itself.
        momentum: of Nesterov.
        weight_decay: as torch has it.
        rates: that are tried.
    """

    name: str
    network: Callable[[], nn.Sequential]
    grouped: tuple[int, ...] | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    rates: Sequence[float] = RATES

    def blocks(self, network: nn.Sequential) -> list[Block]:
        """Its layers in forward order."""
        layers = layers_in_order(network, lambda: network(torch.zeros(2, 784)))
        if self.grouped is None:
            return layers
        rest = iter(layers)
        return [tuple(itertools.chain(*itertools.islice(rest, count))) for count in self.grouped]

    def optimizer(self, rate: float) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
        """That of torch, for a block."""
        return partial(
            torch.optim.SGD, lr=rate, momentum=self.momentum, nesterov=self.momentum > 0, weight_decay=self.weight_decay
        )


SETTINGS = (
    Setting("MLP, 1 layer", partial(mlp, 1)),
    Setting("MLP, 2 layers", partial(mlp, 2)),
    Setting("MLP, 4 layers", partial(mlp, 4)),
    Setting("MLP, 8 layers", partial(mlp, 8), rates=(0.01, *RATES)),
    Setting("MLP, 4 layers, momentum", partial(mlp, 4), None, 0.9, 5e-4, (0.003, 0.01, 0.03, 0.1)),
    Setting("convolutions", partial(convolutions, False), rates=RATES[2:]),
    Setting("convolutions, BatchNorm apart", partial(convolutions, True), rates=RATES[2:]),
    Setting("convolutions with BatchNorm", partial(convolutions, True), (2, 2, 1), rates=RATES[2:]),
)


@dataclass(frozen=True)
class Digits:
    """Images of one part and their digits."""

    images_N784: Tensor
    digit_N: Tensor


def drawn(seed: int) -> dict[str, Digits]:
    """Parts of the training split without an image in common, each digit equally often; the test split is not read."""
    pixels, digit_N = mnist.digits("train")
    order = np.random.default_rng(seed).permutation(len(digit_N))
    members = [order[digit_N[order] == digit] for digit in range(10)]
    parts, start = {}, 0
    for name, count in PER_CLASS.items():
        rows = np.concatenate([each[start : start + count] for each in members])
        parts[name] = Digits(mnist.normalised(pixels[rows]), torch.from_numpy(digit_N[rows].astype(np.int64)))
        start += count
    return parts


def place(folder: Path, setting: str, rate: float, arm: str, seed: int) -> Path:
    """Where a run is kept."""
    name = f"{setting}-{rate:g}-{arm}-{seed}.json".replace(" ", "-").replace(",", "")
    return folder / "backforward" / name


def run(folder: Path, setting: Setting, rate: float, arm: str, seed: int, parts: dict[str, Digits]) -> None:
    """One run, unless it is there. In a step all arms of a seed see the same images and begin with the same weights."""
    kept = place(folder, setting.name, rate, arm, seed)
    if kept.is_file():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = setting.network()
    backforward = Backforward(network, setting.blocks(network), setting.optimizer(rate))
    layers = len(backforward.blocks)
    steps = STEPS * layers if arm == "SGD" else STEPS
    own = {"SGD": range(0), "Backforward": range(steps), "Backforward first": range(SHORT),
           "Backforward last": range(steps - SHORT, steps)}[arm]  # fmt: skip
    curve: dict[str, list[float]] = {name: [] for name in CURVES}
    stopped = None
    for step, batch in zip(range(steps), batches(parts["training"], seed), strict=False):
        try:
            (backforward.step if step in own else partial(plain_step, backforward))(partial(loss_of, network, *batch))
        except TrainingError:
            stopped = step
            break
        if (step + 1) % EVERY == 0:
            for name, value in measured(network, parts).items():
                curve[name].append(value)
    said = {"setting": setting.name, "rate": rate, "arm": arm, "seed": seed, "layers": layers, "diverged_at": stopped}
    write_json(kept, {**said, "curve": curve})


def loss_of(network: nn.Module, images: Tensor, digits: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(network(images), digits)


def plain_step(backforward: Backforward, loss_now: Callable[[], Tensor]) -> None:
    """The same optimizers with one gradient of all layers: SGD.

    Raises:
        TrainingError: the loss is not finite.
    """
    loss = loss_now()
    if not torch.isfinite(loss):
        raise TrainingError(f"SGD: the loss is {loss.item()}")
    for optimizer in backforward.optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in backforward.optimizers:
        optimizer.step()


def batches(part: Digits, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, every image once before any comes again."""
    for rows in cut(permutations(np.arange(len(part.digit_N)), seed), BATCH):
        yield part.images_N784[torch.from_numpy(rows)], part.digit_N[torch.from_numpy(rows)]


def measured(network: nn.Module, parts: dict[str, Digits]) -> dict[str, float]:
    """Loss and accuracy of the parts, and the norm of all weights but biases and those of normalisations."""
    found = {}
    network.eval()
    with torch.no_grad():
        for name, part in parts.items():
            logits = network(part.images_N784)
            words = name.replace(" ", "-")
            found[f"{words} loss"] = F.cross_entropy(logits, part.digit_N).item()
            found[f"{words} accuracy"] = (logits.argmax(1) == part.digit_N).double().mean().item()
        weights = [parameter.square().sum() for parameter in network.parameters() if parameter.ndim > 1]
        found["norm"] = float(torch.stack(weights).sum().sqrt())
    network.train()
    return {name: found[name] for name in CURVES}


def found(folder: Path, setting: Setting, rate: float, arm: str) -> list[Run] | None:
    """The runs of all seeds; None unless all are there."""
    places = [place(folder, setting.name, rate, arm, seed) for seed in SEEDS]
    return [json.loads(each.read_text()) for each in places] if all(each.is_file() for each in places) else None


def at(run: Run, curve: str, step: int) -> float:
    """A quantity after so many steps; NaN when it had diverged by then."""
    values = run["curve"][curve]
    return values[step // EVERY - 1] if step // EVERY <= len(values) else float("nan")
