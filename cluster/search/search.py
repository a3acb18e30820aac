"""A search from its document to that of the best trial."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.interruptions import Interruptions, StopAsked
from cluster.new_folder import made_unless_in_vain
from cluster.ray_train import run_on_workers, settled
from cluster.search.document import SearchConfig
from cluster.search.kinds import Kind
from cluster.search.outcome import Tried, best, write_table, write_winner
from cluster.search.records import Records
from cluster.search.space import check_space
from cluster.search.trial import TRIALS, Trial
from cluster.search.tuning import Tuning
from cluster.store import Store
from cluster.worker_group import WorkerGroup
from data_shards.support.documents import digest, read_mapping, write_resolved
from data_shards.support.errors import ConfigError, TrainingError
from data_shards.support.files import read_json, write_json

_STATE = "search.json"


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes:
        trials: all of them.
        winner: the best.
        document: its document.
        table: all trials as CSV.
    """

    trials: list[Tried]
    winner: Tried
    document: Path
    table: Path


def search(config: SearchConfig, kind: Kind, *, resume: bool = False) -> Found | None:
    """Try what the space says and write the document of the best trial.

    Args:
        config: the search.
        kind: of run that is varied.
        resume: go on with what lies in ``config.out``; otherwise that folder must not exist.

    Returns:
        What was found; None when the search was asked to stop (SIGTERM).

    Raises:
        ConfigError: a key, a value or the varied document cannot be used; nothing is started and left behind.
        ClusterError: the cluster is not there, or cannot hold a trial.
        TrainingError: no trial came to its end; the reason of the first is told.
        KeyboardInterrupt: Ctrl-C. The trials are ended; ``resume`` goes on with them.
    """
    out = config.out.expanduser().absolute()
    config = config.model_copy(update={"out": out})
    if out.exists() and not resume:
        raise ConfigError(f"{out} exists already; choose another out, or pass --resume to go on")
    base = read_mapping(config.base)
    check_space(base, config.space, kind, f"{config.base} with the space")
    mark = {
        "search": digest(config, without=("out", "address", "concurrent", "tracking_uri", "experiment")),
        "base": json.loads(json.dumps(base, default=str)),  # as the file has it: its keys are words
    }
    if resume:
        _check_same(out, mark)
    group = settled(
        WorkerGroup(
            address=config.address,
            workers=1,
            threads_per_worker=config.cpus_per_trial,
            gpus_per_worker=1 if config.gpus_per_trial else 0,
        )
    )
    Store(config.tracking_uri)  # one that does not answer is told now
    trial = Trial(kind, base, out, config.metric, config.cpus_per_trial, config.gpus_per_trial, os.getcwd())
    with made_unless_in_vain(out, (TRIALS,)):
        write_resolved(config, out)
        write_json(out / _STATE, mark)
        with Interruptions() as interruptions:
            try:
                tuning = Tuning(config, trial, resume)
                tried: list[Tried] = run_on_workers(tuning, group, out, interruptions=interruptions)
            except BaseException as error:
                wished = isinstance(error, (KeyboardInterrupt, StopAsked))
                _records(config).end_all("KILLED" if wished else "FAILED")
                if isinstance(error, StopAsked):
                    return None
                raise
    return _found(config, base, tried)


def _records(config: SearchConfig) -> Records:
    """As the process of Ray has left them."""
    return Records(config.out, config.tracking_uri, config.experiment)


def _found(config: SearchConfig, base: dict[str, object], tried: list[Tried]) -> Found:
    table, records = write_table(config, tried), _records(config)
    winner = best(tried, config.mode)
    if winner is None:
        records.end("FAILED")
        first = next((each.reason for each in tried if each.reason), "all were stopped early")
        raise TrainingError(f"none of {len(tried)} trials came to its end, see {table}; the first: {first}")
    document = write_winner(config, base, winner, len(tried))
    assert winner.score is not None
    records.log({config.metric: winner.score}, winner.step)
    records.end("FINISHED", winner=f"trial {winner.number}")
    return Found(tried, winner, document, table)


def _check_same(out: Path, mark: dict[str, object]) -> None:
    """See that what is gone on with is the same search.

    Raises:
        ConfigError: there is none, or its document or the varied one has changed.
    """
    if not (out / _STATE).exists():
        raise ConfigError(f"{out}: there is no search to go on with")
    before = read_json(out / _STATE, ConfigError)
    for name, what in (("search", "the document of the search"), ("base", "the document that is varied")):
        if before.get(name) != mark[name]:
            raise ConfigError(f"{out}: {what} has changed since this search began; choose another out")
