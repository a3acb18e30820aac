"""Does the generator of BrainFuse beat the mean of two slices, and a registration, on brains it has never seen?

``python -m benchmarks.studies interpolation FOLDER``. It learns from the training subjects of the hippocampus volumes;
for each held-out subject the slices between two that are 2, 4 and 6 apart are made anew. The registration is TV-L1
optical flow (Zach, Pock and Bischof, DAGM 2007, as scikit-image has it), by which either slice is brought halfway.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.stats import t
from skimage.metrics import structural_similarity
from skimage.registration import optical_flow_tvl1

from benchmarks.studies.runs import hippocampus
from benchmarks.table import Table
from pretrain.brainfuse.bundle import load_generator
from pretrain.brainfuse.generator import Generator, GeneratorConfig
from pretrain.brainfuse.training import GeneratorRun, train_generator
from pretrain.brainfuse.triples import slices_at
from pretrain.brainfuse.volumes import Volumes

AXIS = 1
GAPS = (1, 2, 3)
STEPS = 1500

Between = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def run(folder: Path) -> Table:
    """Train it unless it is there, and compare."""
    place, _ = hippocampus(folder)
    config = GeneratorRun(
        out=folder / "generator", shards=place, axis=AXIS, gaps=GAPS, steps=STEPS,
        generator=GeneratorConfig(width=32, depth=2),
    )  # fmt: skip
    if not (config.out / "bundle" / "config.json").is_file():
        train_generator(config, resume=config.out.exists())
    generator = load_generator(config.out / "bundle")
    made: dict[str, Between] = {
        "mean": lambda a, b: (a + b) / 2, "TV-L1": _registered, "generator": lambda a, b: _generated(generator, a, b)
    }  # fmt: skip
    volumes = Volumes(place, "test", AXIS)
    rows = []
    for gap in GAPS:
        scores = {
            name: np.array([_scores(volume, gap, between) for volume in volumes]) for name, between in made.items()
        }
        for name, found_N2 in scores.items():
            differences = [found_N2 - scores[other] for other in made if other != name]
            cells = [_interval(each_N2[:, metric]) for each_N2 in differences for metric in (0, 1)]
            others = (
                ", ".join(f"{cells[2 * n]} dB, {cells[2 * n + 1]}" for n in range(2)) if name == "generator" else "-"
            )
            rows.append((str(gap), name, f"{found_N2[:, 0].mean():.2f}", f"{found_N2[:, 1].mean():.4f}", others))
    return Table(
        title="The slice between two, on brains never seen",
        command="python -m benchmarks.studies interpolation FOLDER",
        columns=("gap", "made by", "PSNR, dB", "SSIM", "less mean, dB", "SSIM", "less TV-L1, dB", "SSIM"),
        rows=tuple(rows),
        remarks=f"Mean over {len(volumes)} held-out subjects (volumes of 1 mm, slices across axis {AXIS}), of each the "
        "PSNR of the error of all its slices and the mean SSIM; 95 % t intervals over subjects. Slices that show "
        f"nothing are left out. {STEPS} steps, seed 0. torch {torch.__version__}.",
    )


def _scores(volume: torch.Tensor, gap: int, between: Between) -> tuple[float, float]:
    places = torch.arange(gap, volume.shape[1] - gap)
    rows = torch.zeros_like(places)
    a, target, b = (slices_at([volume], rows, places + step) for step in (-gap, 0, gap))
    shown = target.flatten(1).std(dim=1) > 0
    found, target = between(a, b)[shown], target[shown]
    error = float((found - target).square().mean())
    similar = [
        structural_similarity(one[0].numpy(), other[0].numpy(), data_range=2.0)
        for one, other in zip(found, target, strict=True)
    ]
    return float(10 * np.log10(4 / error)), float(np.mean(similar))


@torch.no_grad()
def _generated(generator: Generator, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return generator(a, b, 0.5).image


def _registered(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    found = []
    for first, second in zip(a[:, 0].numpy(), b[:, 0].numpy(), strict=True):
        grid = np.stack(np.meshgrid(*(np.arange(length) for length in first.shape), indexing="ij")).astype(float)
        halves = []
        for one, other in ((first, second), (second, first)):
            # The displacement from one to the other; halfway lies half of it, from either side.
            flow = optical_flow_tvl1(one, other)
            halves.append(map_coordinates(other, grid + flow / 2, order=1, mode="nearest"))
        found.append(np.mean(halves, axis=0))
    return torch.from_numpy(np.stack(found)[:, None]).float()


def _interval(values_N: np.ndarray) -> str:
    half = t.ppf(0.975, len(values_N) - 1) * values_N.std(ddof=1) / len(values_N) ** 0.5
    return f"{values_N.mean():+.3f} [{values_N.mean() - half:+.3f}, {values_N.mean() + half:+.3f}]"
