"""A whole fine-tuning: from a document to a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_shards.support.documents import digest, write_resolved
from data_shards.support.errors import DataError
from data_shards.support.files import finite, new_folder, refuse_existing, write_atomic, write_json
from data_shards.vocabulary import Modality, Organ, Task, word
from finetune.backbones import BundleReference, open_backbone, told_of
from finetune.cases import Cases
from finetune.census import describe
from finetune.classifier.estimate import REPEATS, Estimate, cross_validated, scored_on
from finetune.classifier.estimator import FewLabelClassifier, FewLabelModel, FewLabelRegressor
from finetune.classifier.record import FitRecord
from finetune.classifier.site import Site, check_site
from finetune.classifier.unlabelled import apart, check_unlabelled
from finetune.config import FinetuneConfig, ImagesConfig
from finetune.estimated import data_summary, estimated_rows
from finetune.heads import check_head
from finetune.intensity import differences, with_rules
from finetune.predictions import columns_of
from finetune.progress import counted
from finetune.readers import Outline, check_told, kind_at, outline, read_cases, read_new, read_partly
from finetune.report.run.page import PAGE, write_run_page
from finetune.report.run.results import read_run
from finetune.scoring import Scores
from finetune.strategies import create_strategy
from finetune.study.probing import require_all_classes
from finetune.subsets import Budget, draw, save
from finetune.tables import as_csv
from finetune.windows import check_overlap, told_of_crops, window_of_fit
from pretrain.devices import check_device

Say = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning gave.

    Attributes:
        train: the cases that labels were taken from.
        record: what the fit used and chose.
        estimates: how good it is: on each split that was set aside, or by cross-validation; empty when neither was
            possible or wanted.
        shortage: what the train split does not have of the budget, in words; empty when it is there.
        notes: what else has to be known, a sentence each.
    """

    train: Cases
    record: FitRecord
    estimates: dict[str, Estimate]
    shortage: str = ""
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> dict[str, Scores]:
        """Those of the estimates."""
        return {name: estimate.scores for name, estimate in self.estimates.items()}


def finetune(
    config: FinetuneConfig, backbone: str | Path, out: Path, *, overwrite: bool = False, say: Say = lambda line: None
) -> FinetuneResult:
    """Adapt a backbone and write the classifier, its predictions and its scores.

    Where there is a test split, or a validation split, it is scored. Where there is none, every case is predicted by
    models that were fitted without it, see :mod:`finetune.classifier.estimate`.

    Args:
        config: what to do.
        backbone: ``config.model`` as a local folder, or the name of a fresh network.
        out: the folder that appears with ``classifier/``, ``predictions.csv``, ``metrics.json``, ``report.html``,
            ``config.yaml`` and, with a label budget, ``subset.json``.
        overwrite: replace ``out``.
        say: is told of the classes, and of what is to be known of the data, before anything is trained.

    Raises:
        MedformerError: the data, the model or the folder cannot be used; nothing is left behind.
    """
    refuse_existing(out, overwrite=overwrite)
    check_device(config.device)
    check_head(config.head, config.head_options, Task[config.task])
    check_unlabelled(config.stepper, given=config.unlabelled is not None)
    check_site(config.params, given=config.target_data is not None, labelled=config.target_csv is not None)
    for further in (config.unlabelled, config.target_data, config.target_csv):
        if further is not None and not further.exists():
            raise DataError(f"{further}: no such file or folder")  # labelled images may take long to read
    source = BundleReference(str(backbone), called=config.model) if Path(backbone).is_dir() else backbone
    opened = open_backbone(source, config.seed)  # refused before images are read, which may take long
    for line in told_of(opened):
        say(line)
    check_overlap(config, [opened.crop])
    config = with_rules(config, {config.model: opened.intensity})
    splits = read(config.data, config)
    for line in describe(splits):
        say(line)
    if "train" not in splits:
        raise DataError(f"{config.data}: there is no train split")
    train = splits["train"]
    if train.labels is None:
        raise DataError(f"{config.data}: no labels; give a table with a column label, or a folder for each class")
    for said in differences(train, opened.intensity):
        say(f"{train.name}: warning: {said}")
    window = window_of_fit(config, opened, train)
    check_overlap(config, [window])
    if window is not None and config.window is None:
        say(f"{train.name}: {told_of_crops(config.model, window)}")
    with new_folder(out, overwrite=overwrite) as partial:
        given, index_sha256, shortage = train.shared(), "", ""
        if config.per_class is not None or config.fraction is not None:
            subset = draw(train, Budget(per_class=config.per_class, fraction=config.fraction), config.seed)
            save(subset, partial / "subset.json")
            given, index_sha256, shortage = given[subset.positions], subset.indices_sha256, subset.shortage
        if given.target.classifies and given.task is not Task.multilabel:
            require_all_classes(given)
        model = _model(config, source, given, window)
        unlabelled, left_out = _unlabelled(config, train, splits)
        site, moved = _site(config, train, splits)
        model.fit(given, index_sha256=index_sha256, unlabelled=unlabelled, target_data=site)
        estimates, notes = _estimates(config, model, given, splits, unlabelled, site)
        if left_out:
            notes.append(f"{left_out} unlabelled cases are among those of a held-out split and are left out.")
        if moved:
            notes.append(f"{moved} cases of the target site are among those of a held-out split and are left out.")
        if site is not None:
            notes.append(ELSEWHERE)
        kept = {name: estimate.as_json() for name, estimate in estimates.items()}
        model.save(partial / "classifier", estimate=finite(kept))
        rows = []
        for name, estimate in estimates.items():
            scored = splits.get(name, given)
            rows += estimated_rows(scored, estimate, name)
        result = FinetuneResult(train, model.record_, estimates, shortage, tuple(notes))
        write_atomic(partial / "predictions.csv", as_csv(rows, columns_of(given.target)))
        data = data_summary(splits, given)
        write_json(partial / "metrics.json", finite(_metrics(config, result) | {"data": data}))
        write_resolved(config, partial)
        write_run_page(read_run(partial), partial / PAGE)
    return result


CROSS_VALIDATION = "cross-validation"
"""What predictions are called that come from no split."""


def _model(
    config: FinetuneConfig, source: str | Path | BundleReference, cases: Cases, window: tuple[int, ...] | None
) -> FewLabelModel:
    kind = FewLabelClassifier if cases.target.classifies else FewLabelRegressor
    organ, modality = cases.organ.name, cases.modality.name
    params = config.params | {"window": window, "seed": config.seed, "device": config.device}
    return kind(source, organ=organ, modality=modality, **params)


def _recipe(config: FinetuneConfig, train: Cases) -> Mapping[str, Any]:
    if train.recipe is None:
        raise DataError(f"{config.data}: how its images were prepared is not known, so none can be read like them")
    return train.recipe


def _unlabelled(config: FinetuneConfig, train: Cases, splits: Mapping[str, Cases]) -> tuple[Cases | None, int]:
    """The unlabelled cases, without those of a split that is scored, and how many these are."""
    if config.unlabelled is None:
        return None, 0
    recipe = _recipe(config, train)
    with counted("studies", "reading unlabelled") as told:
        found = read_new(
            config.unlabelled, recipe, show_paths=config.show_paths, on_error=config.on_error, progress=told
        )
    held = [cases for name, cases in splits.items() if name != "train"]
    return apart(replace(found, labels=None), held)


def _site(config: FinetuneConfig, train: Cases, splits: Mapping[str, Cases]) -> tuple[Site | None, int]:
    """The cases of the target site, without those of a split that is scored, and how many these are."""
    if config.target_data is None:
        return None, 0
    recipe = _recipe(config, train)
    with counted("studies", "reading target site") as told:
        labelled, unlabelled = read_partly(
            config.target_data,
            recipe,
            csv=config.target_csv,
            missing=config.missing,
            show_paths=config.show_paths,
            on_error=config.on_error,
            progress=told,
        )
    return Site(unlabelled, labelled).apart([cases for name, cases in splits.items() if name != "train"])


ELSEWHERE = (
    "Images of a target site were used. The scores are of images of the source site; how good the classifier is at the "
    "target site is shown by labelled images of it that it has not seen, by predict or robustness."
)
"""What has to be said of a classifier that was made for another site than that of the labels."""


def _estimates(
    config: FinetuneConfig,
    model: FewLabelModel,
    given: Cases,
    splits: Mapping[str, Cases],
    unlabelled: Cases | None,
    site: Site | None,
) -> tuple[dict[str, Estimate], list[str]]:
    """On each split that was set aside; by cross-validation where there is none; and what has to be said."""
    held = [split for split in ("val", "test") if split in splits]
    if held:
        return {split: scored_on(model, splits[split], seed=config.seed, name=split) for split in held}, []
    if not config.folds:
        return {}, ["No estimate was asked for: nothing is known of how good this classifier is."]
    trains = create_strategy(config.strategy, config.strategy_options).trains_backbone
    repeats = config.repeats or (1 if trains else REPEATS)
    try:
        found = cross_validated(
            model,
            given,
            folds=config.folds,
            repeats=repeats,
            seed=config.seed,
            unlabelled=unlabelled,
            target_data=site,
        )
    except DataError as error:
        return {}, [f"No estimate: {error}."]
    return {CROSS_VALIDATION: found}, []


def outlined(path: Path, config: ImagesConfig) -> Outline:
    """What :func:`read` will find at a path, as far as it can be told before an image is decoded.

    Raises:
        DataError: it is not there or damaged, or is of a kind that an option does not go with.
    """
    check_told(
        path,
        kind_at(path, config.csv),
        size=config.size,
        organ=word(Organ, config.organ),
        modality=word(Modality, config.modality),
        task=word(Task, config.task),
        prepare=config.prepare,
        options=_options(path, config),
        label=config.label,
        intensity=config.intensity != {},  # the rule of a model, which is not known yet, is one
    )
    return outline(path, config.csv)


def _options(path: Path, config: ImagesConfig) -> dict[str, Any]:
    """Further options of a folder of images, label columns among them."""
    options = dict(config.options)
    if config.labels:
        columns = dict(options.get("columns") or {})
        if columns.get("label"):
            raise DataError(f"{path}: label columns are named twice, by labels and by options.columns.label")
        if config.csv is None:
            raise DataError(f"{path}: label columns are named and there is no table")
        options["columns"] = columns | {"label": config.labels}
    return options


def read(path: Path, config: ImagesConfig) -> dict[str, Cases]:
    """The cases at a path, by split, as the options say."""
    options = _options(path, config)
    with counted("studies", "reading") as told:
        return read_cases(
            path,
            csv=config.csv,
            size=config.size,
            organ=word(Organ, config.organ),
            modality=word(Modality, config.modality),
            channels=config.channels,
            missing=config.missing,
            show_paths=config.show_paths,
            task=word(Task, config.task),
            prepare=config.prepare,
            intensity=config.intensity,
            options=options,
            label=config.label,
            on_error=config.on_error,
            progress=told,
        )


def _metrics(config: FinetuneConfig, result: FinetuneResult) -> dict[str, Any]:
    train = result.train
    return {
        "config_sha256": digest(config),
        "code_version": version("medformer"),
        "dataset": train.name,
        "task": train.task.name,
        "organ": train.organ.name,
        "modality": train.modality.name,
        "official": train.official,
        "note": train.note,
        "source": dict(train.source),
        "licence": train.licence,
        "classes": {str(index): name for index, name in train.classes.items()},
        "train_content_sha256": train.content_sha256(),
        "shortage": result.shortage,
        "notes": list(result.notes),
        "lacking": {"train": train.lacking, **{split: scores.lacking for split, scores in result.scores.items()}},
        "fit": result.record.as_json(),
        "estimates": {name: estimate.as_json() for name, estimate in result.estimates.items()},
        "scores": {split: scores.as_json() for split, scores in result.scores.items()},
    }
