"""What the stem is worth with few labels: the one that was the default once, the default of today, and others tried.

``python -m benchmarks.studies stems FOLDER``. medformer_nano is pretrained by SimCLR on planes and on volumes at their
nominal size: all stems for as many steps, and the default of today also for as much CPU time as the old one took.
Frozen features are read with 10 and 50 labels per class. All arms of a seed see the same images in the same order and
the same draws of labels. Stems were chosen by the first seeds and the training images that a draw left; the test split
is predicted by the old default and the new one alone. Every network is scored once and kept, so a run that was stopped
goes on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.studies.nominal import (
    GROUNDS,
    MEAN,
    SIMCLR,
    Ground,
    Reading,
    Splits,
    collected,
    few_label_scores,
    pretrain,
)
from benchmarks.studies.paired import interval
from benchmarks.studies.stem_arms import NEW, OLD, TRIED, Arm, fresh
from benchmarks.table import Table
from data_shards.support.allocator import keep_freed_memory
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json, write_json
from finetune.fit.features import summaries
from pretrain.module import PretrainModule

SEEDS, TRIAL_SEEDS = range(5), range(2)
READS: dict[Literal["linear", "kNN"], str] = {"linear": "mean_spread", "kNN": "embedding"}
WARM, TIMED = 2, 6
AT_STEPS, AT_TIME = "equal steps", "equal time"


def run(folder: Path) -> list[Table]:
    """Train and score what is missing, and put it together."""
    keep_freed_memory()
    for seed, ground in itertools.product(SEEDS, GROUNDS):
        for arm, mode in _jobs(seed):
            score(folder, ground, arm, mode, seed)
    return [trial_table(folder), table(folder)]


def _jobs(seed: int) -> Iterator[tuple[Arm, str]]:
    yield OLD, AT_STEPS
    yield NEW, AT_STEPS
    if seed in TRIAL_SEEDS:
        yield from ((arm, AT_STEPS) for arm in TRIED)
    yield NEW, AT_TIME


def place(folder: Path, ground: Ground, arm: Arm, mode: str, seed: int) -> Path:
    """Where the scores of a network are kept."""
    name = f"{arm.name}-{mode}-{seed}.json".replace(" ", "")
    return folder / "scores" / ground.name / name


def score(folder: Path, ground: Ground, arm: Arm, mode: str, seed: int) -> None:
    """Pretrain a network and read it on every set of the ground, unless that was done."""
    kept = place(folder, ground, arm, mode, seed)
    if kept.is_file():
        return
    splits = ground.splits(folder)
    steps = ground.steps
    if mode == AT_TIME:
        steps = round(steps * step_s(folder, ground, OLD, splits) / step_s(folder, ground, arm, splits))
    started_s = time.process_time()
    module = PretrainModule(fresh(arm, ground.size, seed), SIMCLR)
    pretrain(ground, [module], seed, steps, splits)
    record: dict[str, Any] = {"steps": steps, "cpu_s": time.process_time() - started_s, "sets": {}}
    tested = arm in (OLD, NEW)
    for name, each in splits.items():
        found = {split: summaries(module.backbone, each[split]) for split in ("train", *(["test"] if tested else []))}
        readings = {
            probe: Reading(probe, {split: said.read(read) for split, said in found.items()})
            for probe, read in READS.items()
        }
        record["sets"][name] = few_label_scores(each, readings)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, record)
    print(f"{ground.name} {arm.name} {mode} {seed} {json.dumps(record)}", flush=True)


def step_s(folder: Path, ground: Ground, arm: Arm, splits: Mapping[str, Splits]) -> float:
    """CPU time of a step, the shortest of some: others on the machine make steps longer, never shorter."""
    path = folder / "steps" / ground.name / f"{arm.name}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        taken: list[float] = []
        module = PretrainModule(fresh(arm, ground.size, 0), SIMCLR)
        pretrain(ground, [module], 0, WARM + TIMED + 1, splits, taken)
        write_json(path, {"step_cpu_s": min(taken[WARM:])})
    return float(read_json(path, MedformerError)["step_cpu_s"])


def found_scores(
    folder: Path, arm: Arm, mode: str, seeds: Sequence[int], split: str
) -> dict[tuple[str, str], list[float]]:
    """Scores by set and probe, one for each seed that is there; and the mean of the sets, by probe."""
    records = []
    for seed in seeds:
        paths = [place(folder, ground, arm, mode, seed) for ground in GROUNDS]
        if all(path.is_file() for path in paths):
            records.append({name: each for path in paths for name, each in _sets(path).items()})
    return collected(records, split)


def _sets(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path, MedformerError)["sets"]
    return found


def trial_table(folder: Path) -> Table:
    """How the stem was chosen."""
    old = found_scores(folder, OLD, AT_STEPS, TRIAL_SEEDS, "left")
    rows = []
    for arm in (OLD, NEW, *TRIED):
        found = found_scores(folder, arm, AT_STEPS, TRIAL_SEEDS, "left")
        if not found:
            continue
        times = [step_s(folder, ground, arm, ground.splits(folder)) for ground in GROUNDS]
        cells = []
        for probe in READS:
            mean = np.mean(found[MEAN, probe])
            cells.append(f"{mean:.3f} ({mean - np.mean(old[MEAN, probe]):+.3f})")
        rows.append((arm.name, *(f"{value * 1e3:.0f}" for value in times), *cells))
    return Table(
        title="How the default stem was chosen",
        command="python -m benchmarks.studies stems FOLDER",
        columns=("stem", *(f"step on {ground.name}, CPU ms" for ground in GROUNDS), *READS),
        rows=tuple(rows),
        remarks=f"AUC on the training images that the draws of labels left, mean of four sets and of "
        f"{len(TRIAL_SEEDS)} seeds, after as many steps of pretraining; in brackets beside the old default.",
    )


def table(folder: Path) -> Table:
    """The old default and the new one, on test images."""
    old = found_scores(folder, OLD, AT_STEPS, SEEDS, "test")
    steps, seconds = (found_scores(folder, NEW, mode, SEEDS, "test") for mode in (AT_STEPS, AT_TIME))
    rows = []
    for key in old:
        if min(len(each.get(key, ())) for each in (old, steps, seconds)) < len(SEEDS):
            continue
        differences = [[a - b for a, b in zip(each[key], old[key], strict=True)] for each in (steps, seconds)]
        rows.append((
            *key, *(f"{np.mean(each[key]):.3f}" for each in (old, steps, seconds)), *map(interval, differences)
        ))  # fmt: skip
    return Table(
        title="The default stem of today beside the old one",
        command="python -m benchmarks.studies stems FOLDER",
        columns=("set", "probe", OLD.name, f"{NEW.name}, {AT_STEPS}", f"{NEW.name}, {AT_TIME}",
                 f"difference, {AT_STEPS}", f"difference, {AT_TIME}"),
        rows=tuple(rows),
        remarks=_remarks(folder),
    )  # fmt: skip


def _remarks(folder: Path) -> str:
    words = []
    for ground in GROUNDS:
        path = place(folder, ground, NEW, AT_TIME, 0)
        more = read_json(path, MedformerError)["steps"] if path.is_file() else "?"
        words.append(
            f"{ground.steps} steps of {ground.rows} images of {' x '.join(map(str, ground.size))} on {ground.name} "
            f"({', '.join(ground.sets)}), {more} in the CPU time of the old stem"
        )
    return (
        "Test AUC of frozen features, mean over 10 and 50 labels per class, three draws each, and over "
        f"{len(SEEDS)} seeds of pretraining; differences with their 95 % t interval over paired seeds. linear: of mean "
        "and spread of the tokens; kNN: of the embedding. medformer_nano with nothing set but its stem, SimCLR; "
        f"{'; '.join(words)}. pneumoniamnist is reassembled, not the official file. torch {torch.__version__}."
    )
