"""``python -m tests.chaos FOLDER [--seed N] [--only KIND]``: every fault, one run each; goes on where it was stopped.

Each trial is a line of ``FOLDER/outcomes.jsonl``. The table is printed at the end; status 1: something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import traceback
from pathlib import Path

from benchmarks.table import Table
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from tests.chaos.faults import KINDS
from tests.chaos.stage import Stage
from tests.chaos.trial import EVERY, STEPS, Outcome, trial, unbroken


def main(arguments: list[str]) -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for runs, logs and outcomes")
    parser.add_argument("--seed", type=int, default=0, help="of when each fault comes and whom it meets")
    parser.add_argument("--only", choices=KINDS, help="one kind of fault")
    given = parser.parse_args(arguments)
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    done = _read(folder / "outcomes.jsonl")
    if not (shards := folder / "shards").exists():
        write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), shards)
    stage = Stage(folder)
    try:
        stage.start()
        expected = unbroken(stage, shards, folder)
        for kind, number in planned(given.only):
            if not any((each.fault, each.number) == (kind, number) for each in done):
                stage.mend()
                done.append(_tried(stage, shards, folder, kind, number, given.seed, expected))
    finally:
        stage.stop()
    print(table(done, given.seed).markdown())
    return int(any(each.wrong for each in done))


def planned(only: str | None) -> list[tuple[str, int]]:
    """The trials, one of each kind before the next of any, so that a run that is cut short has seen most."""
    counts = {kind: count for kind, (_, count) in KINDS.items() if only in (None, kind)}
    return [(kind, number) for number in range(max(counts.values())) for kind in counts if number < counts[kind]]


def _tried(stage: Stage, shards: Path, folder: Path, kind: str, number: int, seed: int, expected: str) -> Outcome:
    try:
        outcome = trial(stage, shards, folder, kind, number, seed, expected)
    except Exception as error:  # What a fault brings about is the outcome, whatever it is.
        traceback.print_exc()
        outcome = Outcome(kind, number, wrong=[f"{type(error).__name__}: {error}"])
    with open(folder / "outcomes.jsonl", "a") as file:
        file.write(json.dumps(outcome.record()) + "\n")
    print(outcome.record(), flush=True)
    return outcome


def _read(path: Path) -> list[Outcome]:
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def table(outcomes: list[Outcome], seed: int) -> Table:
    """A row for each kind of fault."""
    rows = []
    for kind in KINDS:
        ours = [each for each in outcomes if each.fault == kind]
        if not ours:
            continue
        times = [each.recovered_s for each in ours if each.recovered_s is not None]
        shown = f"{statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f})" if times else "none needed"
        right = sum(not each.wrong for each in ours)
        told = "; ".join(sorted({each.told for each in ours if each.told})) or "-"
        rows.append((kind, str(len(ours)), f"{right} of {len(ours)}", shown, told))
    total, right = len(outcomes), sum(not each.wrong for each in outcomes)
    rows.append(("all", str(total), f"{right} of {total}", "", ""))
    return Table(
        title="Faults on purpose",
        command="make chaos",
        columns=("fault", "trials", "right", "seconds until training goes on, median", "by hand"),
        rows=tuple(rows),
        remarks="A Ray head with dashboard and a second node, a worker on each, a tracking server, jobs over HTTP; "
        f"runs of {STEPS} steps with a checkpoint every {EVERY}, the fault after a step that is drawn (seed {seed}). "
        "Right: the run finishes, its weights are bit for bit those of the unbroken run, each step is once in the "
        "curves (the file's and the tracking server's), no step before a complete checkpoint was taken again, nothing "
        "half-written is left. By hand: what a person does after the fault.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
