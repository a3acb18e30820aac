"""A whole fine-tuning and a whole evaluation: from a document to a folder of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.documents import digest, write_resolved
from data_shards.support.errors import DataError
from data_shards.support.files import finite, new_folder, write_atomic, write_json
from data_shards.vocabulary import Modality, Organ, Task, word
from finetune.backbones import BundleReference, fresh_twin, load_pretrained
from finetune.census import describe
from finetune.comparison import ComparisonRow, compare
from finetune.config import EvaluateConfig, FinetuneConfig, ImagesConfig
from finetune.estimator import FewLabelClassifier
from finetune.evaluation import EvaluationRow, evaluate, require_all_classes
from finetune.labelled import LabelledImages
from finetune.readers import read_labelled
from finetune.record import FitRecord
from finetune.representations import Frozen, RawPixels
from finetune.scoring import Scores
from finetune.subsets import Budget, draw, save
from finetune.summary import as_csv, write_comparison

Say = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning gave.

    Attributes:
        train: the split that labels were taken from.
        record: what the fit used and chose.
        scores: per split that was not trained on; empty when there is none.
        shortage: what the train split does not have of the budget, in words; empty when it is there.
    """

    train: LabelledImages
    record: FitRecord
    scores: dict[str, Scores]
    shortage: str = ""


def finetune(
    config: FinetuneConfig, backbone: str | Path, out: Path, *, overwrite: bool = False, say: Say = lambda line: None
) -> FinetuneResult:
    """Adapt a backbone and write the classifier, its predictions and its scores.

    Args:
        config: what to do.
        backbone: ``config.model`` as a local folder, or the name of a fresh network.
        out: the folder that appears with ``classifier/``, ``predictions.csv``, ``metrics.json``, ``config.yaml`` and,
            with a label budget, ``subset.json``.
        overwrite: replace ``out``.
        say: is told of the classes, and of what is to be known of the data, before anything is trained.

    Raises:
        MedformerError: the data, the model or the folder cannot be used; nothing is left behind.
    """
    splits = _read(config.data, config)
    for line in describe(splits):
        say(line)
    if "train" not in splits:
        raise DataError(f"{config.data}: there is no train split")
    train = splits["train"]
    with new_folder(out, overwrite=overwrite) as partial:
        given, index_sha256, shortage = train, "", ""
        if config.per_class is not None or config.fraction is not None:
            subset = draw(train, Budget(per_class=config.per_class, fraction=config.fraction), config.seed)
            save(subset, partial / "subset.json")
            given, index_sha256, shortage = subset.of(train), subset.indices_sha256, subset.shortage
        classifier = FewLabelClassifier(
            BundleReference(str(backbone), called=config.model) if Path(backbone).is_dir() else backbone,
            head=config.head,
            strategy=config.strategy,
            task=train.task.name,
            organ=train.organ.name,
            modality=train.modality.name,
            seed=config.seed,
            device=config.device,
        )
        if given.task is not Task.multilabel:
            require_all_classes(given)
        classifier.fit(
            given.images, given.targets, given.subjects, spacing_mm=given.spacing_mm, index_sha256=index_sha256
        )
        classifier.save(partial / "classifier")
        scores: dict[str, Scores] = {}
        rows = []
        for split in ("val", "test"):
            if split in splits:
                probabilities_NK = classifier.predict_proba(splits[split].images, splits[split].spacing_mm)
                rows += _prediction_rows(split, splits[split], probabilities_NK)
                scores[split] = Scores.of(splits[split], probabilities_NK, seed=config.seed)
        result = FinetuneResult(train, classifier.record_, scores, shortage)
        write_atomic(partial / "predictions.csv", as_csv(rows))
        write_json(partial / "metrics.json", finite(_metrics(config, result)))
        write_resolved(config, partial)
    return result


def evaluate_bundle(
    config: EvaluateConfig, bundle: Path, out: Path, *, overwrite: bool = False, say: Say = lambda line: None
) -> tuple[list[EvaluationRow], list[ComparisonRow]]:
    """Probe a bundle on datasets, and compare it on few labels when budgets are given.

    Args:
        config: what to do.
        bundle: ``config.model`` as a local folder.
        out: the folder that appears with ``evaluation.json``, ``config.yaml`` and, with budgets, ``comparison.json``,
            ``comparison.csv`` and ``subsets/``.
        overwrite: replace ``out``.
        say: is told of every row as it is there.

    Raises:
        MedformerError: the data, the model or the folder cannot be used; nothing is left behind.
    """
    opened = load_pretrained(bundle)
    fresh = fresh_twin(opened)
    pretrained = opened.backbone.to(config.device)
    rows: list[EvaluationRow] = []
    few: list[ComparisonRow] = []
    with new_folder(out, overwrite=overwrite) as partial:
        for path in config.data:
            splits = _read(path, config)
            for line in describe(splits):
                say(line)
            random = Frozen("random network", fresh(config.seeds[0]).to(config.device))
            for row in evaluate(
                splits, [RawPixels(), random, Frozen("pretrained", pretrained)], seed=config.seeds[0], k=config.k
            ):
                rows.append(row)
                say(f"{row.dataset}: {row.representation}, {row.probe}: {_area(row.scores)}")
            for few_row in (
                compare(
                    splits,
                    pretrained,
                    fresh,
                    budgets=[Budget(per_class=count) for count in config.per_class],
                    seeds=config.seeds,
                    folder=partial / "subsets",
                    options={"device": config.device, "max_steps": config.max_steps},
                )
                if config.per_class
                else ()
            ):
                few.append(few_row)
                say(f"{few_row.dataset}, {few_row.budget}: {few_row.arm}: {_area(few_row.scores)}")
        document = {"config_sha256": digest(config), "rows": [row.as_json() for row in rows]}
        write_json(partial / "evaluation.json", finite(document))
        if few:
            write_comparison(few, partial)
        write_resolved(config, partial)
    return rows, few


def _read(path: Path, config: ImagesConfig) -> dict[str, LabelledImages]:
    return read_labelled(
        path,
        csv=config.csv,
        size=config.size,
        organ=word(Organ, config.organ),
        modality=word(Modality, config.modality),
        channels=config.channels,
        missing=config.missing,
        show_paths=config.show_paths,
    )


def _area(scores: Scores) -> str:
    return f"AUC undefined, {', '.join(scores.lacking)}" if scores.lacking else f"AUC {scores.auc.estimate:.3f}"


def _metrics(config: FinetuneConfig, result: FinetuneResult) -> dict[str, Any]:
    train = result.train
    return {
        "config_sha256": digest(config),
        "dataset": train.name,
        "official": train.official,
        "note": train.note,
        "source": dict(train.source),
        "classes": dict(train.classes),
        "shortage": result.shortage,
        "lacking": {"train": train.lacking, **{split: scores.lacking for split, scores in result.scores.items()}},
        "fit": result.record.as_json(),
        "scores": {split: scores.as_json() for split, scores in result.scores.items()},
    }


def _prediction_rows(split: str, images: LabelledImages, probabilities_NK: np.ndarray) -> list[dict[str, Any]]:
    names = [images.classes[index] for index in sorted(images.classes)]
    rows = []
    for key, label_L, probability_K in zip(images.keys, images.labels, probabilities_NK, strict=True):
        row: dict[str, Any] = {"key": str(key), "split": split}
        if len(label_L) == 1:
            row |= {"label": names[label_L[0]], "predicted": names[int(probability_K.argmax())]}
        else:
            row |= {f"label: {name}": int(value) for name, value in zip(names, label_L, strict=True)}
        rows.append(row | {f"p({name})": f"{value:.6f}" for name, value in zip(names, probability_K, strict=True)})
    return rows
