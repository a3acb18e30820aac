"""How much of a GPU a training step of the backbone uses, and where the rest goes.

``python -m benchmarks.utilisation [--model NAME] [--size PIXELS ...] ...`` on any machine with a CUDA device; it needs
torch, timm, numpy and this repository, nothing else. Model FLOPs utilisation is the operations of the model in a step,
by :mod:`pretrain.backbone.flops`, over those that the device could have done in that time: what activation
checkpointing computes again does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import pretrain.backbone  # noqa: F401  (registers the sizes)
from benchmarks.kernels import breakdown
from benchmarks.table import Table
from cluster.plan.gpus import PEAK_TFLOPS
from pretrain.backbone.flops import forward_cost
from pretrain.metadata import Metadata

_BATCHES = {2: 256, 3: 32}
_WARM_UP = 3


@dataclass(frozen=True)
class Setting:
    """One way to run a training step.

    Attributes:
        model: name of the size.
        size: of the images, two or three numbers.
        channels: of the images.
        batch: images of a step.
        compiled: whether ``torch.compile`` makes the step.
        recomputed: whether activations are checkpointed.
    """

    model: str
    size: tuple[int, ...]
    channels: int
    batch: int
    compiled: bool
    recomputed: bool


def run() -> Table:
    """The default settings; without a CUDA device a table without rows that says so."""
    return _table(_arguments([]))


def main(words: list[str]) -> int:
    """Measure what the command line says and print the table."""
    print(_table(_arguments(words)).markdown())
    return 0


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.utilisation", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--model", default="medformer_base", metavar="NAME")
    parser.add_argument(
        "--size", nargs="+", type=int, action="append", metavar="PIXELS", help="may be repeated; 224, and 96 96 96"
    )
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, help=f"images of a step; default {_BATCHES[2]}, of volumes {_BATCHES[3]}")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, of which the median counts")
    parser.add_argument("--compile", choices=("off", "on", "both"), default="both")
    parser.add_argument("--checkpointing", choices=("off", "on", "both"), default="both")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bfloat16, where its name is not known here")
    return parser.parse_args(words)


def _table(arguments: argparse.Namespace) -> Table:
    title, command = "Utilisation of a GPU by a training step", "python -m benchmarks.utilisation"
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks: no CUDA device: utilisation is left out", file=sys.stderr)
        return Table(title, command, (), (), "Not measured: this machine has no CUDA device.")
    device = torch.device(arguments.device)
    name, peak = _peak(device, arguments.peak_tflops)
    choices = {"off": (False,), "on": (True,), "both": (False, True)}
    rows, counted = [], []
    for numbers in arguments.size or [[224], [96, 96, 96]]:
        size = tuple(numbers) * 2 if len(numbers) == 1 else tuple(numbers)
        counted.append(f"{_counted(arguments.model, size, arguments.channels):.3f} at {_text(size)}")
        batch = arguments.batch or _BATCHES[len(size)]
        for compiled in choices[arguments.compile]:
            for recomputed in choices[arguments.checkpointing]:
                setting = Setting(arguments.model, size, arguments.channels, batch, compiled, recomputed)
                rows.append(_row(setting, device, peak, arguments.steps))
                print("benchmarks:", *rows[-1], sep=" | ", file=sys.stderr)
    return Table(
        title=title,
        command=command,
        columns=(
            "image", "batch", "compiled", "checkpointing", "images/s", "step, ms", "TFLOP/s", "utilisation", "peak GiB",
            "where the time goes",
        ),
        rows=tuple(rows),
        remarks=f"{arguments.model}, {name}, torch {torch.__version__}, bfloat16 by autocast; forward, backward and "
        f"AdamW; median of {arguments.steps} steps. Utilisation is of {peak:g} TFLOP/s. Operations are three times "
        "those of a forward pass by formula; torch's counter finds of them, in forward and backward: "
        f"{', '.join(counted)}. Shares of time are of a profile of three steps; idle is when no kernel runs.",
    )  # fmt: skip


def _peak(device: torch.device, given: float | None) -> tuple[str, float]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = given or next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
    if not peak:
        raise SystemExit(f"benchmarks: the peak of {name!r} is not known here; give it by --peak-tflops")
    return name, peak


def _counted(model: str, size: tuple[int, ...], channels: int) -> float:
    """Operations of forward and backward by torch's counter over those by formula; the forward passes must agree."""
    with torch.device("meta"):
        backbone = timm.create_model(model, num_classes=0)
        images = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter:
        embedding_BD = backbone.features(images).embedding_BD
    expected = forward_cost(backbone, size, channels).total
    if abs(counter.get_total_flops() / expected - 1) > 0.001:
        raise RuntimeError(f"{counter.get_total_flops():,} operations counted, {expected:,} by formula")
    with FlopCounterMode(display=False) as backward:
        embedding_BD.sum().backward()
    return (counter.get_total_flops() + backward.get_total_flops()) / (3 * expected)


def _row(setting: Setting, device: torch.device, peak: float, steps: int) -> tuple[str, ...]:
    switches = ["yes" if on else "no" for on in (setting.compiled, setting.recomputed)]
    labels = (_text(setting.size), str(setting.batch), *switches)
    cuda = device.type == "cuda"
    try:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        step, flops = _step(setting, device)
        seconds = _median_s(step, device, steps)
        shares = breakdown(step, device)
    except torch.OutOfMemoryError:
        return (*labels, "out of memory", *[""] * 5)
    finally:
        if setting.compiled:
            torch.compiler.reset()
    achieved = flops / seconds / 1e12
    return (
        *labels,
        f"{setting.batch / seconds:,.1f}",
        f"{seconds * 1e3:,.1f}",
        f"{achieved:.3g}",
        f"{achieved / peak:.1%}",
        f"{torch.cuda.max_memory_allocated(device) / (1 << 30):.1f}" if cuda else "",
        ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share >= 0.005),
    )


def _step(setting: Setting, device: torch.device) -> tuple[Callable[[], None], int]:
    """A training step, and its operations by formula."""
    torch.manual_seed(0)
    backbone = timm.create_model(setting.model, num_classes=0).to(device).train()
    backbone.set_grad_checkpointing(setting.recomputed)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-4, fused=device.type == "cuda")
    images = torch.randn(setting.batch, setting.channels, *setting.size, device=device)
    metadata = Metadata.uniform(setting.batch, device=device)

    def loss(images: Tensor) -> Tensor:
        return backbone.features(images, metadata).embedding_BD.float().square().mean()

    forward = torch.compile(loss) if setting.compiled else loss

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            value = forward(images)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, 3 * setting.batch * forward_cost(backbone, setting.size, setting.channels).total


def _median_s(step: Callable[[], None], device: torch.device, steps: int) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times_s = []
    for number in range(_WARM_UP + steps):
        wait()
        started_s = time.perf_counter()
        step()
        wait()
        if number >= _WARM_UP:
            times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s)


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
