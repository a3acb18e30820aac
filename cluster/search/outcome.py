"""What came of the trials, and the document of the best one."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster.search.document import SearchConfig
from cluster.search.space import in_words, with_values
from cluster.search.trial import SCORE, STEP, TOTAL
from cluster.store import first_line
from data_shards.support.errors import MedformerError
from data_shards.support.files import write_atomic

WINNER, TABLE = "winner.yaml", "trials.csv"


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: of the trial, from 1.
        name: of its folder.
        values: at the keys of the space.
        status: ``finished``, ``stopped`` early, or ``failed``.
        score: the metric when it was last taken; None when it never was.
        step: when that was.
        reason: why it failed; empty otherwise.
    """

    number: int
    name: str
    values: Mapping[str, Any]
    status: Literal["finished", "stopped", "failed"]
    score: float | None
    step: int
    reason: str = ""

    def told(self, metric: str) -> str:
        """The trial in one line."""
        values = in_words(self.values)
        if self.status == "failed":
            return f"trial {self.number} failed ({values}): {self.reason}"
        early = f", stopped at step {self.step}" if self.status == "stopped" else ""
        return f"trial {self.number}: {metric} {self.score:.6g}{early} ({values})"


def outcome(name: str, values: Mapping[str, Any], last: Mapping[str, Any], error: BaseException | None) -> Tried:
    """What came of a trial.

    Args:
        name: that Tune gave it.
        values: at the keys of the space.
        last: what it reported last, if anything.
        error: what ended it, if anything did.
    """
    step, score = int(last.get(STEP, 0)), last.get(SCORE)
    score = None if score is None else float(score)
    if error is None and score is None:
        error = MedformerError("it ended without a report")
    if error is not None:
        return Tried(number_of(name), name, values, "failed", score, step, _reason(error))
    status: Literal["finished", "stopped"] = "finished" if step >= int(last[TOTAL]) else "stopped"
    return Tried(number_of(name), name, values, status, score, step)


def number_of(name: str) -> int:
    """The number of a trial, from 1: Tune counts its trials from 0, at the end of their names."""
    return int(name.rpartition("_")[2]) + 1


def _reason(error: BaseException) -> str:
    """What ended a trial, in one line."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, MedformerError):
        return " ".join(str(cause).split())
    return f"{type(cause).__name__}: {first_line(cause)}"


def best(trials: Sequence[Tried], mode: str) -> Tried | None:
    """The best of the trials that came to their end; None when none did."""
    ended = [
        each for each in trials if each.status == "finished" and each.score is not None and each.score == each.score
    ]
    if not ended:
        return None
    sign = 1 if mode == "min" else -1
    return min(ended, key=lambda each: (sign * (each.score or 0.0), each.number))


def write_table(config: SearchConfig, trials: Sequence[Tried]) -> Path:
    """All trials, a row each, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "folder", "status", config.metric, "step", *config.space, "reason"])
    for each in trials:
        score = "" if each.score is None else each.score
        values = [each.values.get(key, "") for key in config.space]
        rows.writerow([each.number, each.name, each.status, score, each.step, *values, each.reason])
    path = config.out / TABLE
    write_atomic(path, text.getvalue())
    return path


def write_winner(config: SearchConfig, base: Mapping[str, Any], winner: Tried, count: int) -> Path:
    """The varied document with the values of the best trial, as ``medformer pretrain`` or ``finetune`` reads it."""
    body = yaml.safe_dump(with_values(base, winner.values), sort_keys=False)
    head = (
        f"# {config.base.name} with the values of the best of {count} trials of 'medformer search'\n"
        f"# {config.metric} {winner.score:.6g} ({config.mode}), trial {winner.number}, folder trials/{winner.name}\n"
    )
    path = config.out / WINNER
    write_atomic(path, head + body)
    return path
