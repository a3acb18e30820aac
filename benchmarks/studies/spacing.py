"""Do a volume at 1 mm and its resampling at 2 mm get close embeddings?

``python -m benchmarks.studies spacing FOLDER``. Brain volumes of the hippocampus at 1 mm are averaged over cells of
2 x 2 x 2 voxels. Each network embeds both; then every volume at 2 mm looks for its own subject among all at 1 mm. The
networks are told the spacing of each, or nothing (every image counts as 200 mm long), or 1 mm for both, which makes the
coarse volume half as large as it is. Last, the coarse volume is brought back to 1 mm before, as ``prepare.spacing_mm``
does when shards are built.

Five seeds pretrain a network with both views at 1 mm, and one whose second view has voxels of 2 mm
(``views.coarser: [1, 2]``), on 150 subjects; the 67 that are compared were held out, by a hash of their names.
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
from data_shards.vocabulary import Modality, Organ, Task
from finetune.backbones import fresh_twin
from pretrain.backbone import Medformer
from pretrain.bundle import load_bundle
from pretrain.metadata import Metadata

SEEDS = range(5)
STEPS, BATCH, LEARNING_RATE = 300, 32, 0.0005
VIEWS = {"crop_scale_min": 0.5, "crop_aspect": 1.1}
ARMS = {"one resolution": (1.0, 1.0), "two resolutions": (1.0, 2.0)}
TOLD: dict[str, tuple[float | None, float | None]] = {
    "the spacing": (1.0, 2.0),
    "nothing": (None, None),
    "1 mm for both": (1.0, 1.0),
}


def jobs(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The documents of all pretraining runs, by arm and seed."""
    shards, _ = hippocampus(folder)
    found = {
        (arm, seed): document(
            folder / f"{arm.replace(' ', '-')}-{seed}",
            [shards],
            seed,
            STEPS,
            BATCH,
            {},
            {**VIEWS, "coarser": list(coarser)},
        )
        for seed in SEEDS
        for arm, coarser in ARMS.items()
    }
    for job in found.values():  # at the rate of the other studies, 150 volumes collapse or teach nothing
        job["optimizer"]["lr"] = LEARNING_RATE
    return found


def volumes(files: list[Path]) -> list[Tensor]:
    """``1, 1, D, H, W`` each, even axes, the 1st to 99th percentile of its intensities from -1 to 1."""
    found = []
    for path in files:
        array = np.asarray(nib.load(path).dataobj, dtype=np.float32)
        low, high = np.percentile(array, [1, 99]).astype(np.float32)
        array = np.clip((array - low) / max(high - low, 1e-6), 0, 1) * 2 - 1
        even = array[tuple(slice(length // 2 * 2) for length in array.shape)]
        found.append(torch.from_numpy(np.ascontiguousarray(even))[None, None])
    return found


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
    fine = volumes(files)
    coarse = [F.avg_pool3d(volume, 2) for volume in fine]
    restored = [
        F.interpolate(small, size=large.shape[2:], mode="trilinear") for small, large in zip(coarse, fine, strict=True)
    ]
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for (arm, seed), job in jobs(folder).items():
        bundle = load_bundle(pretrained(job))
        networks = {f"pretrained with {arm}": bundle.backbone}
        if arm == next(iter(ARMS)):
            networks = {"random": fresh_twin(bundle)(seed).eval(), **networks}
        for kind, network in networks.items():
            for told, (at_fine, at_coarse) in TOLD.items():
                pair = embeddings(network, fine, at_fine), embeddings(network, coarse, at_coarse)
                found.setdefault((kind, told), []).append(compare(*pair))
            pair = embeddings(network, fine, 1.0), embeddings(network, restored, 1.0)
            found.setdefault((kind, "the spacing, after resampling to 1 mm"), []).append(compare(*pair))
    rows = tuple(
        (kind, told, *(spread([figures[place] for figures in each]) for place in range(3)))
        for (kind, told), each in found.items()
    )
    return Table(
        title="A volume at 1 mm and at 2 mm",
        command="python -m benchmarks.studies spacing FOLDER",
        columns=("network", "told", "cosine to its own", "cosine to others", "own subject is the nearest"),
        rows=rows,
        remarks=f"{len(fine)} brain volumes of about 35 x 50 x 36 mm that no network was trained on; cosines about the "
        f"mean of all embeddings; mean (lowest to highest) of {len(SEEDS)} seeds. Chance of the own subject: "
        f"{1 / len(fine):.3f}. medformer_nano with a stem of 8 channels, SimCLR, {STEPS} steps of {BATCH} volumes of "
        f"the other 150 subjects; torch {torch.__version__}.",
    )
