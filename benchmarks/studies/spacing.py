"""Do a volume at 1 mm and its resampling at 2 mm get close embeddings?

``python -m benchmarks.studies spacing FOLDER``. Brain volumes of the hippocampus at 1 mm are made coarser in two ways:
averaged over cells of 2 x 2 x 2 voxels, and resampled as ``prepare.spacing_mm=2`` does when shards are built. Each
network embeds both; then every volume at 2 mm looks for its own subject among all at 1 mm. Networks are told the
spacing of each, and read the images as they are, or both at 1 mm, or both at 2 mm (``voxel_mm`` of the backbone). Those
that read them as they are are also told nothing (every image counts as 200 mm long).

Five seeds pretrain a network that reads images as they are and one that reads them at 2 mm, on views of which the
second has voxels of 2 mm (``views.coarser: [1, 2]``), of 150 subjects; the 67 that are compared were held out, by a
hash of their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.studies.paired import spread
from benchmarks.studies.runs import document, hippocampus, pretrained
from benchmarks.table import Table
from data_shards.prepare.resample import to_spacing
from data_shards.sample import Image
from data_shards.vocabulary import Modality, Organ, Task
from finetune.backbones import fresh_twin
from pretrain.backbone import Medformer
from pretrain.bundle import load_bundle
from pretrain.metadata import Metadata

SEEDS = range(5)
STEPS, BATCH, LEARNING_RATE = 300, 32, 0.0005
VIEWS = {"crop": {"scale": [0.5, 1.0], "aspect": 1.1}, "coarser": [1.0, 2.0]}
ARMS: dict[str, dict[str, float]] = {"as they are": {}, "at 2 mm": {"voxel_mm": 2.0}}
READ: dict[str, float | None] = {"as they are": None, "at 1 mm": 1.0, "at 2 mm": 2.0}


def jobs(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The documents of all pretraining runs, by arm and seed."""
    shards, _ = hippocampus(folder)
    found = {
        (arm, seed): document(
            folder / f"{arm.replace(' ', '-')}-{seed}", [shards], seed, STEPS, BATCH, {"kwargs": kwargs}, VIEWS
        )
        for seed in SEEDS
        for arm, kwargs in ARMS.items()
    }
    for job in found.values():  # at the rate of the other studies, 150 volumes collapse or teach nothing
        job["optimizer"]["lr"] = LEARNING_RATE
    return found


def volumes(files: list[Path]) -> list[Tensor]:
    """``1, 1, D, H, W`` each, the 1st to 99th percentile of its intensities from -1 to 1."""
    found = []
    for path in files:
        array = np.asarray(nib.load(path).dataobj, dtype=np.float32)
        low, high = np.percentile(array, [1, 99]).astype(np.float32)
        array = np.clip((array - low) / max(high - low, 1e-6), 0, 1) * 2 - 1
        found.append(torch.from_numpy(np.ascontiguousarray(array))[None, None])
    return found


def even(volume: Tensor) -> Tensor:
    """Without the last voxel of odd axes."""
    return volume[(..., *(slice(length // 2 * 2) for length in volume.shape[2:]))]


def prepared(volume: Tensor) -> Tensor:
    """At 2 mm, as shards are prepared."""
    return torch.from_numpy(to_spacing(Image(volume[0].numpy(), spacing_mm=(1.0, 1.0, 1.0)), 2.0).pixels)[None]


@torch.no_grad()
def embeddings(backbone: Medformer, given: list[Tensor], spacing_mm: float | None) -> Tensor:
    """``N, D``, one volume at a time: they are of different sizes."""
    known = Metadata.uniform(1, Organ.brain, Modality.mri, Task.self_supervised)
    told = None if spacing_mm is None else (spacing_mm,) * 3
    return torch.cat([backbone.features(volume, known, told).embedding_BD for volume in given])


def compare(fine_ND: Tensor, coarse_ND: Tensor) -> tuple[float, float, float]:
    """Cosine to the own subject, to the others, and how often the own one is the nearest; about the common mean."""
    mean_D = torch.cat([fine_ND, coarse_ND]).mean(dim=0)
    cosine_NN = F.normalize(coarse_ND - mean_D, dim=1) @ F.normalize(fine_ND - mean_D, dim=1).T
    count = len(cosine_NN)
    own = cosine_NN.diagonal()
    others = (cosine_NN.sum() - own.sum()) / (count * (count - 1))
    first = (cosine_NN.argmax(dim=1) == torch.arange(count)).float().mean()
    return float(own.mean()), float(others), float(first)


def run(folder: Path) -> Table:
    """Embed and compare."""
    _, files = hippocampus(folder)
    whole = volumes(files)
    trimmed = [even(volume) for volume in whole]
    pairs = {
        "averaged": (trimmed, [F.avg_pool3d(volume, 2) for volume in trimmed]),
        "prepared": (whole, [prepared(volume) for volume in whole]),
    }
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for (arm, seed), job in jobs(folder).items():
        bundle = load_bundle(pretrained(job))
        networks = {f"pretrained, reading {arm}": bundle.backbone}
        if arm == next(iter(ARMS)):
            networks = {"random": fresh_twin(bundle)(seed).eval(), **networks}
        for kind, network in networks.items():
            for read, voxel_mm in READ.items():
                network.voxel_mm = voxel_mm
                for way, (fine, coarse) in pairs.items():
                    figures = compare(embeddings(network, fine, 1.0), embeddings(network, coarse, 2.0))
                    found.setdefault((kind, read, way), []).append(figures)
                    if voxel_mm is None:
                        figures = compare(embeddings(network, fine, None), embeddings(network, coarse, None))
                        found.setdefault((kind, f"{read}, told nothing", way), []).append(figures)
    rows = tuple(
        (*row, *(spread([figures[place] for figures in each]) for place in range(3))) for row, each in found.items()
    )
    return Table(
        title="A volume at 1 mm and at 2 mm",
        command="python -m benchmarks.studies spacing FOLDER",
        columns=("network", "read", "made coarser", "cosine to its own", "cosine to others", "own is the nearest"),
        rows=rows,
        remarks=f"{len(whole)} brain volumes of about 35 x 50 x 36 mm that no network was trained on; cosines about "
        f"the mean of all embeddings; mean (lowest to highest) of {len(SEEDS)} seeds. Chance of the own subject: "
        f"{1 / len(whole):.3f}. medformer_nano with a stem of 8 channels, SimCLR, {STEPS} steps of {BATCH} volumes of "
        f"the other 150 subjects, the second view at 2 mm; torch {torch.__version__}.",
    )
