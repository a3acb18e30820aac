"""The toy test of Backforward: one step on one batch, and the loss of that batch; and what a step costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies.backforward_runs import BATCH, SETTINGS, Setting, drawn, loss_of, mlp, plain_step
from benchmarks.table import Table
from data_shards.support.errors import TrainingError
from finetune.analysis.backforward import Backforward
from finetune.analysis.layers import layers_in_order

SEEDS = range(10)
WIDTH = 256
LAYERS = (2, 4, 8)
IMAGES = (4, 64)
RATES = (0.01, 0.1, 1.0)
COMMAND = "python -m benchmarks.studies backforward FOLDER"


def one_batch() -> Table:
    """Median and range over seeds of the loss of a batch after one step on it."""
    given = [drawn(seed)["training"] for seed in SEEDS]
    rows: list[tuple[str, ...]] = []
    for layers in LAYERS:
        for count in IMAGES:
            for rate in RATES:
                losses: list[list[float]] = []
                for seed, part in zip(SEEDS, given, strict=True):
                    chosen = np.random.default_rng(seed).choice(len(part.digit_N), count, replace=False)
                    batch = part.images_N784[chosen], part.digit_N[chosen]
                    losses.append(list(_losses(layers, rate, seed, batch)))
                columns = zip(*losses, strict=True)
                rows.append((str(layers), str(count), f"{rate:g}", *(_median(list(column)) for column in columns)))
    return Table(
        title="One step on one batch",
        command=COMMAND,
        columns=(
            "layers",
            "images",
            "rate",
            "before",
            "SGD, 1 step",
            "SGD, as many steps as layers",
            "Backforward, 1 step",
        ),
        rows=tuple(rows),
        remarks=f"Cross-entropy of the batch, median (lowest to highest) of {len(SEEDS)} seeds. MLP with hidden layers "
        f"of {WIDTH}, no momentum. inf: it was not finite afterwards, or on the way.",
    )


def _losses(layers: int, rate: float, seed: int, batch: tuple[Tensor, Tensor]) -> Iterator[float]:
    for backforward, steps in ((True, 0), (False, 1), (False, layers), (True, 1)):
        torch.manual_seed(seed)
        network = mlp(layers, WIDTH)
        blocks = layers_in_order(network, lambda network=network: network(batch[0]))
        trainer = Backforward(network, blocks, partial(torch.optim.SGD, lr=rate))
        take = trainer.step if backforward else partial(plain_step, trainer)
        loss_now = partial(loss_of, network, *batch)
        try:
            for _ in range(steps):
                take(loss_now)
        except TrainingError:
            yield float("inf")
            continue
        loss = loss_now().item()
        yield loss if np.isfinite(loss) else float("inf")


def _median(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


@cache
def flops(setting: Setting) -> tuple[int, float, float]:
    """Layers of a network, and multiplications and additions of a step of SGD and of Backforward, in millions."""
    network = setting.network()
    trainer = Backforward(network, setting.blocks(network), setting.optimizer(0.01))
    loss_now = partial(loss_of, network, torch.randn(BATCH, 784), torch.arange(BATCH) % 10)
    counts = []
    for take in (partial(plain_step, trainer), trainer.step):
        with FlopCounterMode(display=False) as counter:
            take(loss_now)
        counts.append(counter.get_total_flops() / 1e6)
    return len(trainer.blocks), counts[0], counts[1]


def costs() -> Table:
    """Multiplications and additions of a step, counted."""
    rows = []
    for setting in SETTINGS:
        layers, plain, own = flops(setting)
        rows.append((setting.name, str(layers), f"{plain:.1f}", f"{own:.1f}", f"{own / plain:.2f}"))
    return Table(
        title="What a step costs",
        command=COMMAND,
        columns=("network", "layers, so passes of a step", "SGD, Mflop", "Backforward, Mflop", "ratio"),
        rows=tuple(rows),
        remarks=f"Counted for {BATCH} images. A backward pass ends at the layer that it is for, so a step costs less "
        "than as many steps of SGD as there are layers: as many passes are in favour of SGD, as many flop are not.",
    )
