"""The records of the study of the embedding, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.studies.embedding_arms import ARMS, CHOSEN, QUERY, Arm
from benchmarks.studies.embedding_reads import WHERE
from benchmarks.studies.nominal import GROUNDS, MEAN, Ground, collected
from benchmarks.studies.paired import interval
from benchmarks.table import Table
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json

SEEDS, LOOKED_INTO = range(5), range(2)
LOOKED_DRAWS = range(1)
PROBES: tuple[Literal["linear", "kNN"], ...] = ("linear", "kNN")
READS: Mapping[str, tuple[Literal["linear", "kNN"], str]] = {
    "linear, embedding": ("linear", "embedding"),
    "linear, mean and spread": ("linear", "mean_spread"),
    "kNN, embedding": ("kNN", "embedding"),
    "kNN, mean and spread": ("kNN", "mean_spread"),
}
_OWN, _BOTH = tuple(READS)[:2]
_COMMAND = "python -m benchmarks.studies embedding FOLDER"


def network_place(folder: Path, ground: Ground, arm: Arm, seed: int) -> Path:
    """Where a network and its projector are kept."""
    return folder / "networks" / ground.name / f"{arm.file}-{seed}.safetensors"


def cost_place(folder: Path, ground: Ground, arm: Arm, seed: int) -> Path:
    """Where the CPU time of its pretraining is kept."""
    return network_place(folder, ground, arm, seed).with_suffix(".json")


def score_place(folder: Path, ground: Ground, arm: Arm, seed: int, split: str) -> Path:
    """Where its scores are kept, on what draws ``left`` of the training images or on the split ``test``."""
    return folder / "scores" / ground.name / f"{arm.file}-{split}-{seed}.json"


def reads_place(folder: Path, ground: Ground, seed: int, *, trained: bool) -> Path:
    """Where the scores of every read of the default network are kept."""
    return folder / "reads" / ground.name / f"{'trained' if trained else 'random'}-{seed}.json"


def _joined(paths: Sequence[Path], part: str) -> list[dict[str, Any]]:
    """One part of the records of all grounds together; nothing unless all are there."""
    if not all(path.is_file() for path in paths):
        return []
    return [{name: each for path in paths for name, each in read_json(path, MedformerError)[part].items()}]


def _scores(folder: Path, arm: Arm, seeds: Sequence[int], split: str = "left") -> dict[tuple[str, str], list[float]]:
    """By set and reading, one for each of the seeds; of an arm of which all seeds are there."""
    kept = [_joined([score_place(folder, each, arm, seed, split) for each in GROUNDS], "sets") for seed in seeds]
    return collected([sets for (sets,) in kept], split) if all(kept) else {}


def _seeds(folder: Path, arm: Arm) -> list[int]:
    """Those of which the arm and the default are there."""
    return [seed for seed in SEEDS if all(_scores(folder, each, [seed]) for each in (arm, QUERY))]


def reads_table(folder: Path) -> Table:
    """Where in the default network it is that labels are told from."""
    scores: dict[bool, dict[tuple[str, str], list[float]]] = {}
    ranks: dict[bool, list[dict[str, Any]]] = {}
    for trained in (False, True):
        places = [[reads_place(folder, each, seed, trained=trained) for each in GROUNDS] for seed in LOOKED_INTO]
        scores[trained] = collected([sets for each in places for sets in _joined(each, "sets")], "left")
        ranks[trained] = [values for each in places for sets in _joined(each, "rank") for values in sets.values()]
    names = [name for ground in GROUNDS for name in ground.sets]
    rows = []
    for read in WHERE if all(scores.values()) else ():
        cells = [np.mean(scores[trained][MEAN, f"{probe}, {read}"]) for probe in PROBES for trained in (False, True)]
        cells += [np.mean(scores[True][name, f"linear, {read}"]) for name in names]
        rank = [np.mean([each[read] for each in ranks[trained]]) for trained in (False, True)]
        rows.append((read, *(f"{value:.3f}" for value in cells), *(f"{value:.1f}" for value in rank)))
    return Table(
        title="Where in the network labels are told from",
        command=_COMMAND,
        columns=("read", *(f"{probe}, {state}" for probe in PROBES for state in ("random", "trained")),
                 *(f"linear, trained, {name}" for name in names), "rank, random", "rank, trained"),
        rows=tuple(rows),
        remarks="AUC on the training images that the draws of labels left, mean of four sets, of 10 and 50 labels per "
        f"class, {len(LOOKED_DRAWS)} draw each, and of {len(LOOKED_INTO)} seeds; the effective rank is the mean of "
        f"sets and seeds. {'; '.join(f'{read}: {what}' for read, what in WHERE.items())}. {_setting()}",
    )  # fmt: skip


def arms_table(folder: Path) -> Table:
    """Every arm of two seeds or more, beside what the default reads by its embedding, and by mean and spread."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for arm in ARMS:
        seeds = _seeds(folder, arm)
        found, default = (_scores(folder, each, seeds) for each in (arm, QUERY))
        for name in dict.fromkeys(name for name, _ in found) if len(seeds) > 1 else ():
            cells = [f"{np.mean(found[name, reading]):.3f}" for reading in READS]
            others = [default[name, _OWN], found[name, _BOTH], default[name, _BOTH]]
            differences = [interval(np.subtract(found[name, _OWN], other).tolist()) for other in others]
            if arm is QUERY:
                differences[0] = "-"
            about = (name, arm.name, str(len(seeds)), _cost(folder, arm, seeds))
            rows.setdefault(name, []).append((*about, *cells, *differences))
    return Table(
        title="Ways to make the embedding",
        command=_COMMAND,
        columns=("set", "embedding", "seeds", "CPU time", *READS, "less the default's embedding",
                 "less its own mean and spread", "less the default's mean and spread"),
        rows=tuple(row for each in rows.values() for row in each),
        remarks="AUC on the training images that the draws of labels left, mean over 10 and 50 labels per class, three "
        "draws each, and over seeds of pretraining. The last three columns are of the linear model on the embedding, "
        "with 95 % t intervals over paired seeds. CPU time: of the steps without the views, by that of the default. "
        f"{_setting()}",
    )  # fmt: skip


def _cost(folder: Path, arm: Arm, seeds: Sequence[int]) -> str:
    def total_s(each: Arm) -> float:
        places = [cost_place(folder, ground, each, seed) for ground in GROUNDS for seed in seeds]
        return sum(float(read_json(path, MedformerError)["cpu_s"]) for path in places)

    return f"{total_s(arm) / total_s(QUERY):.2f}"


def test_table(folder: Path) -> Table:
    """The default and the chosen arm on test images; no rows as long as a seed is missing."""
    default, found = (_scores(folder, arm, SEEDS, "test") for arm in (QUERY, CHOSEN))
    rows = []
    for key in default if found else ():
        difference = interval(np.subtract(found[key], default[key]).tolist())
        rows.append((*key, f"{np.mean(default[key]):.3f}", f"{np.mean(found[key]):.3f}", difference))
    return Table(
        title="The embedding on test images",
        command=_COMMAND,
        columns=("set", "read by", QUERY.name, CHOSEN.name, "difference"),
        rows=tuple(rows),
        remarks="Test AUC, as above; the test split was predicted once by each network of these two arms.",
    )


def _setting() -> str:
    each = "; ".join(
        f"{ground.steps} steps of {ground.rows} images of {' x '.join(map(str, ground.size))} on {ground.name} "
        f"({', '.join(ground.sets)})"
        for ground in GROUNDS
    )
    return (
        f"medformer_nano with stem=hmlp, SimCLR; {each}. pneumoniamnist is reassembled, not the official file. "
        f"torch {torch.__version__}."
    )
