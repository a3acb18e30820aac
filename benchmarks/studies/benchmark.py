"""The benchmark of the released network: the tables of docs/benchmark.md.

``python -m benchmarks.studies benchmark FOLDER [evaluate=1] [tries=1] [steps=0] [resnet=0]``. The released network, a
random one and raw pixels are evaluated on four sets by ``medformer evaluate``. Votes that might close the distance to
the goal are tried with a tenth of the labels. With ``steps``, networks are pretrained for so many steps, each without
one of the sets; with ``resnet``, a ResNet-18 is trained for so many epochs on the labels that ours is given. A set, a
fit and a pretraining each have a place of their own in the folder, so a run that was stopped goes on. Parts that are 0
are not run; tables have what is there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.studies import benchmark_equal, benchmark_left_out, benchmark_tries
from benchmarks.studies.benchmark_tables import (
    distance_table,
    draws_table,
    few_table,
    place,
    probes_table,
    rows_of,
)
from benchmarks.studies.benchmark_tries import RELEASED
from benchmarks.studies.recipe import PUBLISHED
from benchmarks.studies.runs import ROOT, shards, source
from benchmarks.table import Table
from finetune.study.tidy import JSON

SEEDS = range(3)


def run(folder: Path, evaluate: float = 1, tries: float = 1, steps: float = 0, resnet: float = 0) -> list[Table]:
    """Evaluate, try and pretrain what is missing, and put it together."""
    if evaluate:
        for name in PUBLISHED:
            evaluated(folder, name)
    if tries:
        benchmark_tries.fit(folder)
    if steps:
        benchmark_left_out.run(folder, int(steps))
    if resnet:
        benchmark_equal.run(folder, int(resnet))
    return tables(folder, int(steps), int(resnet))


def evaluated(folder: Path, name: str) -> None:
    """One set, by the command that users have, unless it is there.

    Raises:
        CalledProcessError: the evaluation failed, and has said why.
    """
    if (place(folder, name) / JSON).is_file():
        return
    data = shards(folder / "shards", source(name))
    command = [sys.executable, "-m", "medformer", "evaluate", str(RELEASED), "--data", str(data)]
    command += ["--fraction", "0.01", "0.1", "--per-class", "10", "50", "--strategies", "frozen"]
    command += ["--seeds", *map(str, SEEDS), "--out", str(place(folder, name))]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def tables(folder: Path, steps: int, epochs: int) -> list[Table]:
    """What is there."""
    rows = rows_of(folder)
    found = [probes_table(rows), few_table(rows), distance_table(rows), benchmark_tries.table(folder)]
    if steps:
        found.append(benchmark_left_out.table(folder, steps))
    if epochs:
        found.append(benchmark_equal.table(folder, epochs))
    return [*found, draws_table(rows)]
