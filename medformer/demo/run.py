"""The stages of the demonstration, each through the same functions as the command of its name."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from cluster.registry import Registry
from data_shards.format.manifest import Manifest
from data_shards.sources.base import Source
from data_shards.support.documents import parse
from data_shards.support.errors import MedformerError
from data_shards.support.files import write_atomic
from data_shards.writing.writer import write_dataset
from finetune.config import EvaluateConfig
from finetune.evaluation import evaluate_bundles
from finetune.report.page import write_page
from finetune.report.terminal import render_terminal
from medformer.demo.images import Chosen, choose, keep_archives
from medformer.demo.report import Findings, report
from pretrain.config import PretrainConfig

MARK = ".medformer-demo"
"""File that shows that a folder was made by a demonstration, and may be replaced by one."""
ALIAS = "champion"

# Whole networks are trained so long; their learning rate is chosen. Longer schedules would double the demonstration.
_FULL_STEPS = 100


@dataclass(frozen=True)
class Options:
    """What a user chooses.

    Attributes:
        out: the folder of everything the demonstration writes.
        data: folder with MedMNIST files; None downloads or synthesises.
        seed: of everything.
        per_class: label budgets of the comparison.
        seeds: draws of each budget.
        tracking_uri: the registry's store; None for the user's own.
        overrides: of the pretraining document.
        overwrite: replace ``out`` if a demonstration made it.
    """

    out: Path
    data: Path | None = None
    seed: int = 0
    per_class: Sequence[int] = (10, 50)
    seeds: Sequence[int] = (0, 1, 2)
    tracking_uri: str | None = None
    overrides: Sequence[str] = ()
    overwrite: bool = False


def run(options: Options) -> Path:
    """Do the main job; returns the result page.

    Raises:
        MedformerError: what has to be put right first.
    """
    from cluster.launch import launch  # only here: what does not pretrain does not need Ray

    started_s = time.monotonic()
    out = options.out.expanduser().absolute()
    if options.data is not None and options.data.expanduser().absolute().is_relative_to(out):
        raise MedformerError(
            f"{options.data} is inside the output folder {out}, which is replaced; choose another --out"
        )
    chosen = choose(options.data, options.seed)
    _prepare(out, options.overwrite)
    archives = keep_archives(chosen, out / "archives")
    for note in (*chosen.notes, *(f"{s.card.name} is not official: {s.card.note}" for s in _unofficial(chosen))):
        _say(note)

    _say(f"1/5 shards of {len(chosen.sources)} datasets")
    shards = _build_shards(chosen, out)

    config = pretraining_config(out, shards, options)
    _say(
        f"2/5 pretraining {config.model.name} on {config.cluster.workers} Ray workers, objective: "
        f"{', '.join(config.objectives)}"
    )
    pretraining_s = time.monotonic()
    if launch(config, resume=False) is None:
        raise MedformerError("pretraining was stopped; start the demonstration again with --overwrite")
    pretraining_s = time.monotonic() - pretraining_s

    registry = Registry(options.tracking_uri)
    name = config.cluster.model_name
    assert name is not None
    newest = registry.show(name).versions[0]
    registry.promote(name, newest.version, ALIAS)
    bundle = registry.pull(f"{name}@{ALIAS}", out / "model")
    _say(f"3/5 registered {name}:{newest.version}, gave it the alias {ALIAS}, pulled it back by that name")

    _say(
        f"4/5 probes, and few-label comparison at {', '.join(map(str, options.per_class))} labels per class, "
        f"{len(options.seeds)} draws"
    )
    evaluation = EvaluateConfig(
        models=(f"{name}@{ALIAS}",),
        data=tuple(shards),
        per_class=tuple(options.per_class),
        seeds=tuple(options.seeds),
        max_steps=_FULL_STEPS,
    )
    found = evaluate_bundles(evaluation, {evaluation.models[0]: bundle}, out / "evaluation", say=_say_indented)

    findings = Findings(
        shards=shards,
        config=config,
        bundle=bundle,
        probes=found.probes,
        few=found.few,
        notes=chosen.notes,
        command=_command(options),
    )
    data = report(findings, pretraining_s)
    write_atomic(out / "report.json", json.dumps(data.model_dump(mode="json"), indent=1) + "\n")
    page = write_page(data, out / "report.html")
    _say("5/5 result page\n")
    print(render_terminal(data))
    minutes, seconds = divmod(round(time.monotonic() - started_s), 60)
    if archives is not None:
        print(f"\nThe archives it read are in {archives}: root={archives} for 'medformer shards build medmnist'.")
    print(f"\n{minutes} min {seconds} s in all. Result page: {page}")
    return page


def pretraining_config(out: Path, shards: Mapping[Path, Manifest], options: Options) -> PretrainConfig:
    """The packaged document, with the places of this demonstration filled in.

    A dataset's share of the steps goes with the root of its size, so that the large one does not drown the small ones.
    """
    document = yaml.safe_load(resources.files("medformer.demo").joinpath("pretrain.yaml").read_text())
    document["out"] = str(out / "pretrain")
    document["seed"] = options.seed
    document["data"]["datasets"] = [
        {"path": str(folder), "weight": round(math.sqrt(manifest.splits["train"].samples), 2)}
        for folder, manifest in shards.items()
    ]
    document["cluster"]["tracking_uri"] = options.tracking_uri
    return parse(PretrainConfig, document, "the demonstration's pretraining", options.overrides)


def _prepare(out: Path, overwrite: bool) -> None:
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise MedformerError(f"{out} exists already; choose another --out or pass --overwrite")
        if not (out / MARK).is_file():
            raise MedformerError(f"{out} was not made by a demonstration; it is not replaced. Choose another --out")
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedformerError(f"{out} cannot be made: {error.strerror or error}") from error
    write_atomic(out / MARK, "")


def _unofficial(chosen: Chosen) -> list[Source]:
    # Phantoms are not official either, and their note says so already.
    return [source for source in chosen.sources if not source.card.official and not chosen.notes]


def _build_shards(chosen: Chosen, out: Path) -> dict[Path, Manifest]:
    shards = {}
    for source in chosen.sources:
        folder = out / "shards" / source.card.name
        shards[folder] = write_dataset(source, folder)
    return shards


def _command(options: Options) -> str:
    words = ["medformer demo", f"--out {options.out}"]
    if options.data is not None:
        words.append(f"--data {options.data}")
    return " ".join([*words, *options.overrides])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_indented(line: str) -> None:
    _say(f"    {line}")
