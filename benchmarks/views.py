"""Views against torchvision, kornia and MONAI, and their share of a training step; one thread, in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.interleaved import Pairs, interleaved, paired
from benchmarks.table import Table
from pretrain.config import ModelConfig
from pretrain.metadata import Metadata
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.views import Views
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.random import sample_keys

PEERS = "MEDFORMER_PEERS_PYTHON"
PROGRAM = Path(__file__).with_name("peers") / "augmentations.py"
PAIRS = 15
PLANES, SIDE, VOLUMES = 128, 64, 2
STEPS = {"28 x 28": ((1, 28, 28), 64), "224 x 224": ((3, 224, 224), 4), "64^3": ((1, 64, 64, 64), 2)}
STEP_PAIRS = 6

REMARKS = f"""\
One thread, seconds of the processor, medians of {PAIRS} batches in turn with their 95 % intervals; {PLANES} planes or \
{VOLUMES} volumes a batch. All make the default views: crop, mirror, rotation, contrast, brightness, gamma, a blur of \
three images in ten, noise, and colour where there are three channels. MONAI does crop and rotation by its one \
RandAffine. kornia has no such intensities for volumes: there both do what moves alone. kornia and MONAI run by the \
interpreter of an environment with benchmarks/peers/augmentations.txt.

The share of a training step: SimCLR with medformer_nano, the smallest network, without the optimizer, medians of \
{STEP_PAIRS} in turn. At most 10 % is asked for.

"""


def noise(rows: int, *shape: int) -> Tensor:
    """Images of noise."""
    return torch.randint(0, 256, (rows, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ours(images: Tensor, config: ViewConfig) -> Callable[[], Tensor]:
    """Our views of a batch."""
    pipeline, keys_B = Pipeline(config), sample_keys(0, 0, 0, torch.arange(len(images)), 0)
    return lambda: pipeline(images, keys_B)


def torchvisions(images: Tensor) -> Callable[[], Tensor]:
    """The same operations by torchvision v2, one image after the other."""

    def gamma(image: Tensor) -> Tensor:
        exponent = float(torch.empty(()).uniform_(-0.2624, 0.2624).exp())  # log 1.3
        return v2.functional.adjust_gamma(image, exponent)

    each = v2.Compose(
        [
            v2.RandomResizedCrop(images.shape[-1], scale=(0.4, 1.0), ratio=(0.8, 1.25), antialias=False),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomRotation(10, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.4, saturation=0.1)], 0.8),
            v2.RandomApply([v2.Lambda(gamma)], 0.8),
            v2.RandomApply([v2.GaussianBlur(7, (0.1, 1.0))], 0.3),
            v2.GaussianNoise(sigma=0.025),
            v2.Normalize([0.5] * images.shape[1], [0.5] * images.shape[1]),
        ]
    )
    return lambda: torch.stack([each(image) for image in images])


class Peer:
    """A program of another library, by the interpreter that has it, which says what each batch has taken.

    Args:
        python: the interpreter.
        library: name of the program.
    """

    def __init__(self, python: str, library: str) -> None:
        words = [python, str(PROGRAM), library, str(VOLUMES), str(SIDE)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def __call__(self) -> float:
        """Seconds of the processor for one batch."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{PROGRAM.name} ended with status {self._process.wait()}")
        return line

    def close(self) -> None:
        """End the program."""
        self._process.communicate()


def step(shape: tuple[int, ...], rows: int) -> Callable[[], None]:
    """Forward and backward pass of SimCLR with the smallest network on two views of each image."""
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(ModelConfig()), {"simclr": {}})
    images = [torch.rand(rows, *shape) * 2 - 1 for _ in range(2)]
    metadata = Metadata.uniform(rows)

    def run() -> None:
        module.zero_grad()
        module(Views(tuple(images), (metadata,) * 2, (rows,), (None, None)))[0].backward()

    return run


def against_peers() -> list[tuple[str, ...]]:
    """Rows of the comparisons."""
    rows = []
    for channels in (1, 3):
        images = noise(PLANES, channels, 28, 28)
        pairs = interleaved(torchvisions(images), ours(images, ViewConfig()), pairs=PAIRS)
        rows.append(row(f"28 x 28 x {channels}", "torchvision v2, image by image", PLANES, pairs, 5))
    volumes = noise(VOLUMES, 1, SIDE, SIDE, SIDE)
    moves = ViewConfig().moved_only()
    python = os.environ.get(PEERS)
    if not python:
        print(f"benchmarks: {PEERS} is not set: kornia and MONAI are left out", file=sys.stderr)
        return rows
    for library, title, config in (
        ("monai", "MONAI, volume by volume", ViewConfig()),
        ("kornia", "kornia, batched; what moves alone", moves),
    ):
        peer = Peer(python, library)
        try:
            pairs = paired(peer, ours(volumes, config), pairs=PAIRS)
        finally:
            peer.close()
        rows.append(row(f"{SIDE}^3", title, VOLUMES, pairs, 3))
    return rows


def row(images: str, peer: str, count: int, pairs: Pairs, asked: float) -> tuple[str, ...]:
    """One line of the table."""
    rates = (f"{count / seconds:,.0f}" for seconds in (pairs.second_s, pairs.first_s))
    return (images, peer, *rates, pairs.text, f"{asked:g}")


def shares() -> list[tuple[str, ...]]:
    """What two views take of a step in which they are made."""
    rows = []
    for title, (shape, count) in STEPS.items():
        images = noise(count, *shape)
        view = ours(images, ViewConfig())

        def both(view: Callable[[], Tensor] = view) -> None:
            view()
            view()

        pairs = interleaved(both, step(shape, count), pairs=STEP_PAIRS)
        low, middle, high = (100 * part / (1 + part) for part in (pairs.interval[0], pairs.ratio, pairs.interval[1]))
        taken = (f"{seconds / count * 1e3:,.2f}" for seconds in (pairs.first_s, pairs.second_s))
        rows.append((title, *taken, f"{middle:.1f} % [{low:.1f}, {high:.1f}]"))
    return rows


def run() -> Table:
    """Both tables; the second stands in the remarks."""
    compared, parts = against_peers(), shares()
    lines = [
        "| images | two views, ms an image | forward and backward, ms an image | views, of both |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(cells)} |" for cells in parts),
    ]
    return Table(
        title="Making views on the CPU",
        command=f"{PEERS}=PYTHON python -m benchmarks views",
        columns=("images", "peer", "medformer, views/s", "peer, views/s", "times as fast", "asked for"),
        rows=tuple(compared),
        remarks=REMARKS + "\n".join(lines),
    )
