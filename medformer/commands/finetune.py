"""``medformer finetune``: adapt a model to a few labelled images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medformer.commands.data_options import add_data_options, add_document_options, add_run_options, document

if TYPE_CHECKING:
    from finetune.runs import FinetuneResult


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``finetune`` to the command line."""
    parser = subparsers.add_parser(
        "finetune",
        help="adapt a model to a few labelled images",
        description="Adapt a model to a few labelled images; hyper-parameters are chosen within the given labels. "
        "Without a test split the estimate is a repeated cross-validation by subject.",
        epilog="A CSV has the columns file, label, and optionally split (train, val, test), subject, bag (images of "
        "one case) and image (t1w, flair ...); which spellings are read is in docs/sources.md. Results and messages "
        "name rows, not files.",
    )
    given = argparse.SUPPRESS
    add_document_options(parser)
    parser.add_argument(
        "--model", default=given, help="a bundle's folder, NAME@ALIAS, or a network's name, such as timm:resnet18@FILE"
    )
    parser.add_argument(
        "--data",
        default=given,
        type=Path,
        help="folder of DICOM, NIfTI, PNG, JPEG, TIFF or NPY images, MedMNIST npz, or folder of shards",
    )
    parser.add_argument(
        "--unlabelled",
        default=given,
        type=Path,
        metavar="DATA",
        help="further images without labels, folder, npz or shards, for a stepper that learns from them",
    )
    add_site_options(parser)
    add_data_options(parser)
    group = parser.add_argument_group("the fit")
    group.add_argument(
        "--head",
        default=given,
        metavar="NAME",
        help="linear, attention or another registered head (default: linear)",
    )
    group.add_argument(
        "--strategy",
        default=given,
        metavar="NAME",
        help="what is trained: frozen (the head alone), selective, two_stage, full, low_rank (default: frozen)",
    )
    group.add_argument(
        "--ensemble", default=given, metavar="NAME", help="none, folds, seeds or snapshots (default: none)"
    )
    group.add_argument(
        "--coverage", default=given, type=float, metavar="SHARE", help="of the sets in predictions (default: 0.9)"
    )
    budget = group.add_mutually_exclusive_group()
    budget.add_argument("--per-class", default=given, type=int, metavar="N", help="use N labels per class")
    budget.add_argument("--fraction", default=given, type=float, metavar="F", help="use this share of each class")
    group.add_argument(
        "--folds", default=given, type=int, metavar="N", help="of the cross-validation; 0: no estimate (default: 5)"
    )
    group.add_argument(
        "--repeats", default=given, type=int, metavar="N", help="of it (default: 3, 1 where the backbone is trained)"
    )
    group.add_argument("--seed", default=given, type=int, help="(default: 0)")
    add_run_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.set_defaults(run=run_finetune)


def add_site_options(parser: argparse.ArgumentParser) -> None:
    """Images of another site, where the classifier shall be used."""
    given, group = argparse.SUPPRESS, parser.add_argument_group("another site")
    group.add_argument(
        "--target",
        dest="target_data",
        default=given,
        type=Path,
        metavar="DATA",
        help="images of the site where it shall be used, folder, npz or shards",
    )
    group.add_argument(
        "--target-csv",
        default=given,
        type=Path,
        metavar="CSV",
        help="table of such a folder; rows of it that have a label are learned from, too",
    )
    group.add_argument(
        "--alignment",
        default=given,
        type=lambda name: {"name": name},
        metavar="NAME",
        help="makes features of both sites alike: coral or adversarial (default: none)",
    )


def run_finetune(arguments: argparse.Namespace) -> int:
    """Fine-tune, write the results, say what came out."""
    from finetune.config import FinetuneConfig
    from finetune.progress import watched
    from finetune.runs import finetune
    from medformer.model_reference import local_model

    config = document(arguments, FinetuneConfig, "medformer finetune")
    with local_model(config.model, arguments.tracking_uri, networks=True) as backbone, watched():
        result = finetune(config, backbone, arguments.out, overwrite=arguments.overwrite, say=print)
    for line in told(result):
        print(line)
    print(arguments.out)
    return 0


def told(result: FinetuneResult) -> list[str]:
    """What came out, in words."""
    from finetune.origin import remark

    record, train = result.record, result.train
    count = f"{record.distinct_labelled_images} different labelled cases of {len(train)}"
    if train.subjects is not None:
        subjects = len(set(train.subjects.tolist()))
        count += f", {subjects} subject{'s' * (subjects != 1)}"
    lines = [f"{train.name}: {count}, seed {record.seed}"]
    if record.unlabelled_images:
        left = f", {record.unlabelled_left_out} left out, which are labelled" if record.unlabelled_left_out else ""
        lines.append(f"learned from {record.unlabelled_images} unlabelled cases, too{left}")
    if record.target_images or record.target_labelled:
        how = "not aligned" if record.alignment is None else f"aligned by {record.alignment['name']}"
        left = f", {record.target_left_out} left out, which are of the source site" if record.target_left_out else ""
        lines.append(
            f"target site: {how}, {record.target_images} unlabelled and {record.target_labelled} labelled cases{left}"
        )
    if "distinct_seen" in record.chosen:
        lines.append(
            f"{record.chosen['distinct_seen']} different cases were drawn in training, "
            f"{record.chosen['distinct_chosen']} of them chosen"
        )
    lines.append(f"choice of hyper-parameters: {record.selection}")
    if record.members > 1:
        lines.append(f"an ensemble of {record.members} models")
    if record.calibrated_on:
        lines.append(f"calibrated on {record.calibrated_on} held-out predictions, temperature {record.temperature:.2f}")
    if not train.official:
        lines.append(f"note: {remark(train.note)}")
    lines += [f"note: {note}" for note in (result.shortage, *result.notes) if note]
    for estimate in result.estimates.values():
        lines += estimate.told
    return lines
