"""A whole evaluation: models over datasets, from a document to one table and one page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_shards.support.documents import digest, write_resolved
from data_shards.support.errors import DataError
from data_shards.support.files import finite, new_folder, refuse_existing, write_atomic, write_json
from data_shards.support.progress import clock
from data_shards.vocabulary import Task
from finetune.backbones import fresh_twin, load_pretrained, open_backbone, opened_twin, refuse_classifier
from finetune.cases import Cases
from finetune.census import describe
from finetune.config import EvaluateConfig
from finetune.intensity import differences, with_rules
from finetune.reference.baseline import reference_network
from finetune.reference.recipe import axes_of
from finetune.report.collect import data_set
from finetune.report.document import DataSet
from finetune.report.evaluation import evaluation_report, trivial_words
from finetune.report.page import write_page
from finetune.runs import Say, outlined, read
from finetune.scoring import Scores
from finetune.study.arms import BASELINE, Arm, arms_of, baseline_arm, raw_arm, recipe_arms, tangent_arms
from finetune.study.compare import ComparisonRow, Pretrained, check_seeds, compare
from finetune.study.probing import EvaluationRow, check_splits, evaluate, required_splits
from finetune.study.representations import Frozen, RawPixels, Representation
from finetune.study.summary import write_comparison
from finetune.study.tidy import Said, Tidy, write_tidy
from finetune.subsets import Budget
from finetune.windows import check_overlap, told_of_crops
from pretrain.devices import check_device
from pretrain.foreign import is_network
from pretrain.intensity import TrainedOn
from pretrain.tiling import window_of_crops

ALL_LABELS = Budget(fraction=1.0)
REPORT, PAGE = "report.json", "report.html"

_NO_CLASSES = "numbers have no classes to draw so many of each; give fraction, not per_class"

Models = Mapping[str, Pretrained]


@dataclass
class Evaluation:
    """What an evaluation gave.

    Attributes:
        probes: kNN and linear probe of each representation, with all labels.
        few: arms of the few-label comparison.
        full: arms with all labels.
        table: the rows of the tidy table, see :mod:`finetune.study.tidy`.
        trivial: what a constant answer scores on each dataset, a sentence each, and the dataset.
    """

    probes: list[EvaluationRow] = field(default_factory=list)
    few: list[ComparisonRow] = field(default_factory=list)
    full: list[ComparisonRow] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    trivial: dict[str, DataSet] = field(default_factory=dict)

    @property
    def compared(self) -> list[ComparisonRow]:
        """Arms with few labels and with all."""
        return [*self.few, *self.full]


def evaluate_bundles(
    config: EvaluateConfig,
    bundles: Mapping[str, str | Path],
    out: Path,
    *,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Evaluation:
    """Probe bundles on datasets, and compare them on few labels and on all where that is asked for.

    Args:
        config: what to do.
        bundles: each of ``config.models`` as a local folder, or the name of a network; one without weights has no
            arm that is pretrained.
        out: the folder that appears with ``results.csv`` and ``results.json``, ``report.html`` and ``report.json``,
            ``evaluation.json``, ``config.yaml`` and, with arms to compare, ``comparison.json``, ``comparison.csv`` and
            ``subsets/``.
        overwrite: replace ``out``.
        say: is told of every row as it is there.

    Raises:
        MedformerError: the data, the model or the folder cannot be used; nothing is left behind.
    """
    refuse_existing(out, overwrite=overwrite)
    check_device(config.device)
    if config.budgets or config.full:
        check_seeds(config.seeds)
    for called, folder in bundles.items():
        refuse_classifier(Path(folder), called)
    called_by_name = {
        folder: _pretrained(folder, called, config) for called, folder in bundles.items() if _named(folder)
    }
    _check_data(config)
    models: dict[str, Pretrained] = {}
    trained: dict[str, Sequence[TrainedOn]] = {}
    for name, (called, folder) in zip(short_names(list(bundles)), bundles.items(), strict=True):
        models[name], trained[name] = called_by_name.get(folder) or _pretrained(folder, called, config)
    check_overlap(config, [model.window for model in models.values()])
    config = with_rules(config, trained)
    found, fits = Evaluation(), _Fits(config, models, say)
    with new_folder(out, overwrite=overwrite) as partial:
        for path in config.data:
            splits = _splits(path, config, trained, say)
            train, test = required_splits(splits)
            tidy = Tidy(train, test, config.seeds[0])
            shown = f"{test.organ.name}, {test.modality.name}"
            found.trivial[trivial_words(train, test)] = data_set(splits, shown, test.licence)
            found.table += tidy.constant()
            reading = _reading(models, train, config, say)
            for row in evaluate(splits, _representations(config, reading), seed=config.seeds[0], k=config.k):
                found.probes.append(row)
                found.table += tidy.rows(Said.by_probe(row))
                say(f"{row.dataset}: {row.representation}, {row.probe}: {_told(row.scores)}")
            for protocol, arm, compared in fits.of(splits, reading, partial / "subsets"):
                (found.few if protocol == "few_label" else found.full).append(compared)
                found.table += tidy.rows(Said.by_arm(compared, arm, protocol))
        document = {"config_sha256": digest(config), "rows": [row.as_json() for row in found.probes]}
        write_json(partial / "evaluation.json", finite(document))
        if found.compared:
            write_comparison(found.compared, partial)
        write_tidy(found.table, partial)
        report = evaluation_report(config, list(models), found.trivial, found.probes, found.compared, found.table)
        # In its own order, which is that of the page.
        write_atomic(partial / REPORT, json.dumps(finite(report.model_dump(mode="json")), indent=1) + "\n")
        write_page(report, partial / PAGE)
        write_resolved(config, partial)
    return found


class _Fits:
    """The comparisons of an evaluation, one dataset after the other.

    Args:
        config: what to do.
        models: the networks by name.
        say: is told of every row, and of the time that is left.
    """

    def __init__(self, config: EvaluateConfig, models: Models, say: Say) -> None:
        self._config, self._models, self._say = config, models, say
        draws = len(config.data) * len(config.seeds)
        few = len(config.budgets) * len(self._arms("few_label"))
        self._total = draws * (few + len(self._arms("full")) * config.full)
        self._done, self._started_s = 0, 0.0

    def of(
        self, splits: Mapping[str, Cases], reading: Models, folder: Path
    ) -> Iterator[tuple[str, Arm, ComparisonRow]]:
        """Protocol, arm and row of every fit.

        Args:
            splits: of the dataset.
            reading: the networks as they read its images.
            folder: of the index files.
        """
        config = self._config
        self._started_s = self._started_s or time.monotonic()
        asked = {"few_label": config.budgets, "full": [ALL_LABELS] if config.full else []}
        models = dict(reading)
        if "resnet18" in config.baselines:
            models[BASELINE] = Pretrained(None, reference_network(required_splits(splits)[0]))
        for protocol, budgets in asked.items():
            arms = self._arms(protocol)
            by_name = {arm.name: arm for arm in arms}
            for row in compare(
                splits, models, arms, budgets=budgets, seeds=config.seeds, folder=folder, device=config.device
            ):
                self._done += 1
                left_s = (time.monotonic() - self._started_s) / self._done * (self._total - self._done)
                done = f"{self._done}/{self._total}, {clock(left_s)} left"
                self._say(f"{row.dataset}, {row.budget}: {row.arm}: {_told(row.scores)}, {done}")
                yield protocol, by_name[row.arm], row

    def _arms(self, protocol: str) -> list[Arm]:
        """Those of a protocol; a network without weights has none that is pretrained."""
        config, names = self._config, list(self._models)
        if protocol == "few_label":
            arms = arms_of(names, config.heads, config.strategies, {"max_steps": config.max_steps})
        else:
            arms = [raw_arm(), *recipe_arms(names, config.epochs)]
        if "tangent" in config.baselines:
            arms += tangent_arms(names)
        if "resnet18" in config.baselines:
            arms.append(baseline_arm(config.epochs))
        return [arm for arm in arms if arm.weights == "random" or self._models[arm.model].backbone is not None]


def _check_data(config: EvaluateConfig) -> None:
    """Refuse datasets that cannot be evaluated together before anything of the first is computed.

    Raises:
        DataError: one is not there or damaged, is of a kind that an option does not go with, has no training or no test
            split, or is called as another.
    """
    names: set[str] = set()
    for path in config.data:
        found = outlined(path, config)
        if found.name in names:
            raise DataError(f"{path}: another of the datasets is called {found.name}, too; evaluate one at a time")
        names.add(found.name)
        if found.splits is not None:
            check_splits(found.splits, str(path))
        if config.per_class and found.task is Task.regression:
            raise DataError(f"{path}: {_NO_CLASSES}")


def _splits(
    path: Path, config: EvaluateConfig, trained: Mapping[str, Sequence[TrainedOn]], say: Say
) -> dict[str, Cases]:
    """The splits of a dataset, and what has to be known of them."""
    options = dict(config.options)
    if config.groups:
        options["columns"] = {**(options.get("columns") or {}), "groups": config.groups}
    splits = read(path, config.model_copy(update={"options": options}))
    for line in describe(splits):
        say(line)
    for name, rules in trained.items():
        for said in differences(next(iter(splits.values())), rules):
            say(f"{path.name}: warning: {name}: {said}")
    if config.per_class and not required_splits(splits)[0].target.classifies:
        raise DataError(f"{path}: {_NO_CLASSES}")
    return splits


def _representations(config: EvaluateConfig, models: Models) -> list[Representation]:
    """Raw pixels, then each network with random and with its own weights."""
    found: list[Representation] = [RawPixels()]
    for name, model in models.items():
        whose = "" if len(models) == 1 else f"{name}: "
        twin = model.fresh(config.seeds[0]).to(config.device)
        how: dict[str, Any] = {"model": name, "window": model.window, "overlap": model.overlap}
        found.append(Frozen(f"{whose}random network", twin, weights="random", **how))
        if model.backbone is not None:
            found.append(Frozen(f"{whose}pretrained", model.backbone, **how))
    return found


def _named(model: str | Path) -> bool:
    """Whether it is no folder: what is wrong with a name is told before data are looked for, and quickly."""
    return not Path(model).is_dir() and is_network(str(model))


def _pretrained(model: str | Path, called: str, config: EvaluateConfig) -> tuple[Pretrained, Sequence[TrainedOn]]:
    given = config.window or None, config.overlap
    if Path(model).is_dir():
        bundle = load_pretrained(Path(model), called)
        backbone = bundle.backbone.to(config.device)
        if config.window is None and bundle.crop is not None:
            given = window_of_crops(bundle.crop, int(backbone.stride)), config.overlap
        return Pretrained(backbone, fresh_twin(bundle), *given), bundle.intensity
    opened = open_backbone(str(model), 0)
    backbone_or_none = opened.module.to(config.device) if opened.pretrained else None
    return Pretrained(backbone_or_none, opened_twin(str(model)), *given), opened.intensity


def _reading(models: Models, train: Cases, config: EvaluateConfig, say: Say) -> Models:
    """The networks as they read these images: crops are of volumes, and planes were shown whole."""
    if config.window is not None:
        return models
    found = {name: model if axes_of(train) == 3 else replace(model, window=None) for name, model in models.items()}
    for name, model in found.items():
        if model.window is not None:
            say(f"{train.name}: {told_of_crops(name, model.window)}")
    return found


def short_names(references: Sequence[str]) -> list[str]:
    """The last part of each path, and networks without their files, where these differ: tables have no room."""
    short = [
        reference.partition("@")[0] if is_network(reference) else Path(reference).name or reference
        for reference in references
    ]
    return short if len(set(short)) == len(short) else list(references)


def _told(scores: Scores) -> str:
    kind = scores.kinds[0]
    if scores.lacking:
        return f"{kind.words} undefined, {', '.join(scores.lacking)}"
    return f"{kind.words} {scores.metric(kind.name).estimate:.3f}"
