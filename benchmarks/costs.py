"""Training steps of the backbone beside those of the ViT or ResNet that a user would pick instead, on one core.

Every model has a process of its own; two take their steps in turn, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

import pretrain.backbone  # noqa: F401  (registers the sizes)
from benchmarks.interleaved import Pairs, of_times
from benchmarks.table import Table
from data_shards.support.allocator import keep_freed_memory
from pretrain.backbone.flops import forward_cost

SIZES = ("medformer_nano", "medformer_tiny", "medformer_small", "medformer_base", "medformer_large")
IMAGES = ((28, 28), (64, 64), (224, 224), (28, 28, 28), (64, 64, 64), (96, 96, 96))


class VolumeViT(nn.Module):
    """ViT-S on the patches of a volume, of timm's blocks."""

    def __init__(self, size: int, patch: int, dim: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv3d(1, dim, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, dim))
        self.places = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 3, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, heads, qkv_bias=True) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, volumes: Tensor) -> Tensor:
        """The first token ``B, D``."""
        tokens_BTD = self.patches(volumes).flatten(2).transpose(1, 2)
        first_B1D = self.first.expand(len(tokens_BTD), -1, -1)
        answers: Tensor = self.norm(self.blocks(torch.cat([first_B1D, tokens_BTD], dim=1) + self.places))[:, 0]
        return answers


@dataclass(frozen=True)
class Bar:
    """A step of ours beside that of another, and what it may take of it.

    Attributes:
        ours: name of the backbone.
        nominal: images that it is made for.
        other: name of the other, as in :func:`made`, or of the backbone itself.
        images: batch, channels and axes that ours is given.
        others: what the other is given.
        most: of the other's time.
        pairs: of steps.
    """

    ours: str
    nominal: tuple[int, ...]
    other: str
    images: tuple[int, ...]
    others: tuple[int, ...]
    most: float
    pairs: int = 15


_PLANES, _SMALL, _VOLUMES = (8, 3, 224, 224), (64, 3, 28, 28), (2, 1, 96, 96, 96)
BARS = (
    Bar("medformer_small", (224, 224), "vit_small_patch16_224", _PLANES, _PLANES, 0.95),
    Bar("medformer_tiny", (224, 224), "vit_tiny_patch16_224", _PLANES, _PLANES, 1.0),
    Bar("medformer_nano", (28, 28), "resnet18", _SMALL, _SMALL, 1.0),
    Bar("medformer_small", (96, 96, 96), "ViT-S on 16^3", _VOLUMES, _VOLUMES, 1.0),
    Bar("medformer_small", (96, 96, 96), "ViT-S on 8^3", _VOLUMES, _VOLUMES, 0.15, pairs=6),
    Bar("medformer_small", (96, 96, 96), "itself", (1, 1, 192, 192, 192), (1, 1, 64, 64, 64), 27.0, pairs=9),
)


def made(name: str, size: tuple[int, ...]) -> nn.Module:
    """A backbone of ours for images of a size, a model of timm, or a ViT of volumes."""
    if name.startswith("medformer"):
        return timm.create_model(name, num_classes=0, img_size=size)
    if name.startswith("ViT-S on"):
        return VolumeViT(size[0], int(name.split()[-1].removesuffix("^3")))
    return timm.create_model(name, num_classes=0)


def tokens_of(name: str, size: tuple[int, ...], images: tuple[int, ...]) -> int | None:
    """Tokens of an image; None where the model has none."""
    if name.startswith("medformer"):
        with torch.device("meta"):
            return forward_cost(made(name, size), images[2:]).tokens
    with torch.device("meta"):
        other = made(name, size)
    places = getattr(other, "places", getattr(other, "pos_embed", None))
    return None if places is None else places.shape[1] - 1


def stepper(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """A training step without optimizer: forward, mean of the squared outputs, backward."""

    def step() -> None:
        model(images).square().mean().backward()
        model.zero_grad(set_to_none=True)

    return step


def seconds(run: Callable[[], None]) -> float:
    """Of the processor."""
    started_s = time.process_time()
    run()
    return time.process_time() - started_s


class Worker:
    """A process that takes a step of a model whenever it is asked to."""

    def __init__(self, name: str, size: tuple[int, ...], images: tuple[int, ...]) -> None:
        command = [sys.executable, "-m", "benchmarks.costs", json.dumps([name, size, images])]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.step_s()  # the first sets much up

    def step_s(self) -> float:
        """Seconds of the processor for one step."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def measured(bar: Bar) -> Pairs:
    """Steps in turn; which begins alternates."""
    other = bar.ours if bar.other == "itself" else bar.other
    ours, theirs = Worker(bar.ours, bar.nominal, bar.images), Worker(other, bar.nominal, bar.others)
    times = []
    for number in range(bar.pairs):
        if number % 2:
            later = theirs.step_s()
            times.append((ours.step_s(), later))
        else:
            times.append((ours.step_s(), theirs.step_s()))
    ours.end()
    theirs.end()
    return of_times(times)


def run() -> Table:
    """Every bar."""
    rows = []
    for bar in BARS:
        found = measured(bar)
        other = bar.ours if bar.other == "itself" else bar.other
        counts = [tokens_of(bar.ours, bar.nominal, bar.images), tokens_of(other, bar.nominal, bar.others)]
        tokens = ["-" if count is None else f"{count:,}" for count in counts]
        rows.append((
            f"{bar.ours}, {_words(bar.images)}", tokens[0], f"{bar.other}, {_words(bar.others)}", tokens[1],
            f"{found.first_s * 1e3:,.0f}", f"{found.second_s * 1e3:,.0f}", found.text, f"{bar.most:g}",
            "yes" if found.ratio <= bar.most else "no",
        ))  # fmt: skip
    return Table(
        title="A training step beside that of what a user would pick instead",
        command="python -m benchmarks costs",
        columns=("backbone, batch", "tokens", "beside, batch", "tokens", "step, ms", "its step, ms", "of its",
                 "at most", "holds"),
        rows=tuple(rows),
        remarks="Forward, mean of the squared outputs, backward; float32, one thread, time of the processor. Two "
        "processes take steps in turn; medians, and the ratio with its 95 % interval over pairs of steps. Backbones "
        "are made for the size of the images (img_size), nothing else is set. The ViTs of volumes are ViT-S of timm's "
        f"blocks; the last row is one network on volumes of 27 times as many voxels. timm {timm.__version__}.",
    )  # fmt: skip


def shares() -> Table:
    """What the stem takes of a step, by size of the network and of the images."""
    keep_freed_memory()
    torch.set_num_threads(1)
    rows = []
    for name in SIZES:
        for size in IMAGES:
            rows.append((name, _words(size), *share(name, size)))
            print("|", " | ".join(rows[-1]), "|", flush=True, file=sys.stderr)
    return Table(
        title="What the stem takes of a training step",
        command="python -m benchmarks stems",
        columns=("backbone", "image", "tokens", "GFLOP", "of which the stem", "step, ms", "of which the stem"),
        rows=tuple(rows),
        remarks="Images of one channel, a token for as many pixels as the network has it that is made for images of "
        "this size. GFLOP of a forward pass; a step is forward and backward, one thread, time of the processor, "
        "shortest of 3; that of the stem alone by its own forward and backward pass.",
    )


def share(name: str, size: tuple[int, ...], repeats: int = 3) -> tuple[str, ...]:
    """Tokens, operations and time of a step, and the share of the stem of both."""
    model: Any = made(name, size).train()
    cost = forward_cost(model, size, 1)
    batch = max(1, min(16, 2 * 224 * 224 // torch.Size(size).numel(), 20_000_000_000 // cost.total))
    images = torch.randn(batch, 1, *size)
    whole, stem = stepper(model, images), stepper(model.adapter.stem, images)
    times_s = [(seconds(whole), seconds(stem)) for _ in range(1 + repeats)][1:]
    step_s, stem_s = (min(each) for each in zip(*times_s, strict=True))
    return (
        f"{cost.tokens:,}", f"{cost.total / 1e9:.3g}", f"{cost.stem / cost.total:.0%}",
        f"{step_s / batch * 1e3:,.1f}", f"{stem_s / step_s:.0%}",
    )  # fmt: skip


def _words(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def main(name: str, size: list[int], images: list[int]) -> None:
    """Take a step for each line that comes in, and say how long it took."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = stepper(made(name, tuple(size)).train(), torch.randn(images))
    for _ in sys.stdin:
        print(seconds(step), flush=True)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
