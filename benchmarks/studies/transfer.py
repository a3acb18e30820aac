"""Does a network pretrained on planes help on volumes, and the other way? Frozen features beside random networks.

``python -m benchmarks.studies transfer FOLDER``. Each of several seeds pretrains a network, without labels, on planes
of three and of one channel or on volumes of one channel; each is opened as it is on planes and on volumes. A linear
probe of what it gives, its embedding or a summary of its dense tokens, is compared with that of a random network. The
strength of the probe is chosen on the validation split; the test split is predicted once.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.studies.paired import interval, spread
from benchmarks.studies.runs import PLANES, VOLUMES, blocks, document, hippocampus, pretrained, shards, source
from benchmarks.table import Table
from finetune.backbones import fresh_twin
from finetune.readers import read_cases
from finetune.study.probing import evaluate
from finetune.study.representations import Frozen, RawPixels
from pretrain.bundle import load_bundle

SEEDS = {"planes": range(5), "volumes": range(10)}
STEPS = {"planes": 1600, "volumes": 1000}
BATCH = {"planes": 64, "volumes": 32}
LEARNING_RATE = {"planes": 0.002, "volumes": 0.0005}  # at 0.001 two of five seeds collapsed
VIEWS: dict[str, dict[str, Any]] = {"planes": {}, "volumes": {"crop": {"scale": [0.4, 1.0]}}}
MEAN = "mean of the planes"
READS = ("embedding", "mean", "mean_spread")


def jobs(folder: Path) -> dict[tuple[str, int], dict[str, object]]:
    """The documents of all pretraining runs, by what they see and seed."""
    seen = {
        "planes": [shards(folder / "shards", source(name)) for name in PLANES],
        "volumes": [blocks(folder), hippocampus(folder, 0, (24, 24, 24), "hippocampus-24")[0]],
    }
    found = {
        (kind, seed): document(folder / f"{kind}-{seed}", paths, seed, STEPS[kind], BATCH[kind], {}, VIEWS[kind])
        for kind, paths in seen.items()
        for seed in SEEDS[kind]
    }
    for (kind, _), job in found.items():
        job["optimizer"]["lr"] = LEARNING_RATE[kind]
    return found


def run(folder: Path) -> Table:
    """Pretrain what is missing, probe everything."""
    found: dict[tuple[str, str, str, str], list[float]] = {}
    raw: dict[str, float] = {}
    notes = set()
    for (kind, seed), job in jobs(folder).items():
        bundle = load_bundle(pretrained(job))
        networks = {"pretrained": bundle.backbone, "random": fresh_twin(bundle)(seed).eval()}
        for name in (*PLANES, *VOLUMES):
            splits = read_cases(shards(folder / "shards", source(name)))
            for reads in READS:
                given = [Frozen(of, network, reads) for of, network in networks.items()]
                for row in evaluate(splits, [*given, *([] if name in raw else [RawPixels()])], seed=seed):
                    if row.probe != "linear":
                        continue
                    auc = float(row.scores.auc.estimate)
                    if row.representation == RawPixels.name:
                        raw[name] = auc
                    else:
                        found.setdefault((kind, name, reads, row.representation), []).append(auc)
            if not splits["test"].official:
                notes.add(f"{name}: {splits['test'].note}")
    for kind, reads, representation in dict.fromkeys((key[0], *key[2:]) for key in found):
        over = zip(*(found[kind, name, reads, representation] for name in PLANES), strict=True)
        found[kind, MEAN, reads, representation] = [mean(aucs) for aucs in over]
    raw[MEAN] = mean(raw[name] for name in PLANES)
    rows = []
    for kind, name, reads in dict.fromkeys(key[:3] for key in found):
        learned, random = found[kind, name, reads, "pretrained"], found[kind, name, reads, "random"]
        differences = [a - b for a, b in zip(learned, random, strict=True)]
        same = "other" if (name in VOLUMES) == (kind == "planes") else "same"
        columns = (f"{raw[name]:.3f}", spread(random), spread(learned), interval(differences))
        rows.append((kind, name, same, reads, *columns))
    return Table(
        title="Pretrained on planes, used on volumes, and the other way",
        command="python -m benchmarks.studies transfer FOLDER",
        columns=(
            "pretrained on",
            "used on",
            "kind",
            "read",
            "raw pixels",
            "random network",
            "pretrained",
            "difference",
        ),
        rows=tuple(rows),
        remarks="Test AUC of a linear probe of frozen features; mean (lowest to highest) of "
        f"{len(SEEDS['planes'])} seeds of planes and {len(SEEDS['volumes'])} of volumes, difference with its 95 % t "
        "interval over paired seeds. Planes: the training images of "
        f"{', '.join(PLANES)}. Volumes, of one channel: blocks of 24 voxels of two heads and of hippocampi. "
        f"medformer_nano with a stem of 8 channels, SimCLR, {STEPS['planes']} steps of {BATCH['planes']} planes, "
        f"{STEPS['volumes']} of {BATCH['volumes']} volumes; torch {torch.__version__}. {' '.join(sorted(notes))}.",
    )
