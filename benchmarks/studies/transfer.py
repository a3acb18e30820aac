"""Does a network pretrained on planes help on volumes, and the other way? Frozen features beside random networks.

``python -m benchmarks.studies transfer FOLDER``. Each of five seeds pretrains one network on planes of three and of
one channel and one on volumes, without labels; each is opened as it is on the sets of the other kind, and a linear
probe of its frozen embedding is compared with that of a random network. The strength of the probe is chosen on the
validation split; the test split is predicted once.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.studies.paired import interval, spread
from benchmarks.studies.runs import PLANES, VOLUMES, document, pretrained, shards, source
from benchmarks.table import Table
from finetune.backbones import fresh_twin
from finetune.evaluation import evaluate
from finetune.readers import read_labelled
from finetune.representations import Frozen, RawPixels
from pretrain.bundle import load_bundle

SEEDS = range(5)
STEPS = {"planes": 1600, "volumes": 200}
BATCH = {"planes": 64, "volumes": 32}
KINDS = {"planes": PLANES, "volumes": VOLUMES}


def jobs(folder: Path) -> list[dict[str, object]]:
    """The documents of all pretraining runs."""
    paths = {name: shards(folder / "shards", source(name)) for names in KINDS.values() for name in names}
    return [
        document(folder / f"{kind}-{seed}", [paths[name] for name in names], seed, STEPS[kind], BATCH[kind], {})
        for seed in SEEDS
        for kind, names in KINDS.items()
    ]


def run(folder: Path) -> Table:
    """Pretrain what is missing, probe everything."""
    found: dict[tuple[str, str, str], list[float]] = {}
    notes = set()
    for job in jobs(folder):
        kind, _, seed = Path(str(job["out"])).name.rpartition("-")
        bundle = load_bundle(pretrained(job))
        networks = [Frozen(f"pretrained on {kind}", bundle.backbone), Frozen("random", fresh_twin(bundle)(int(seed)))]
        for target, names in KINDS.items():
            for name in names:
                splits = read_labelled(folder / "shards" / name)
                raw = [RawPixels()] if int(seed) == 0 else []
                for row in evaluate(splits, [*networks, *raw], seed=int(seed)):
                    if row.probe == "linear":
                        key = (name, kind, row.representation)
                        found.setdefault(key, []).append(float(row.scores.auc.estimate))
                if not splits["test"].official:
                    notes.add(f"{name} is not official: {splits['test'].note}")
            del target
    rows = []
    for kind, names in KINDS.items():
        for name in (name for other in KINDS.values() for name in other):
            learned, random = found[name, kind, f"pretrained on {kind}"], found[name, kind, "random"]
            differences = [a - b for a, b in zip(learned, random, strict=True)]
            rows.append(
                (
                    f"{kind} ({', '.join(names)})",
                    name,
                    "same" if name in names else "other",
                    f"{found[name, kind, 'raw pixels'][0]:.3f}",
                    spread(random),
                    spread(learned),
                    interval(differences),
                )
            )
    return Table(
        title="Pretrained on planes, used on volumes, and the other way",
        command="python -m benchmarks.studies transfer FOLDER",
        columns=("pretrained on", "used on", "kind", "raw pixels", "random network", "pretrained", "difference"),
        rows=tuple(rows),
        remarks=f"Test AUC of a linear probe of the frozen embedding; mean (lowest to highest) of {len(SEEDS)} seeds, "
        "difference with its 95 % t interval over paired seeds. medformer_nano with a stem of 8 channels, SimCLR, "
        f"{STEPS['planes']} steps of {BATCH['planes']} planes, {STEPS['volumes']} of {BATCH['volumes']} volumes; "
        f"torch {torch.__version__}. " + " ".join(sorted(notes)) + ".",
    )
