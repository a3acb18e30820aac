"""``medformer finetune``: adapt a model to a few labelled images."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_shards.vocabulary import Modality, Organ


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``finetune`` to the command line."""
    parser = subparsers.add_parser(
        "finetune",
        help="adapt a model to a few labelled images",
        description="Adapt a model to a few labelled images; hyper-parameters are chosen within the given labels.",
        epilog="A CSV has the columns file, label, and optionally split (train, val, test) and subject.",
    )
    add_data_options(parser)
    parser.add_argument("--model", required=True, help="a bundle's folder, NAME@ALIAS, or a network's name")
    parser.add_argument("--data", required=True, type=Path, help="MedMNIST npz, folder of shards, or folder of images")
    parser.add_argument(
        "--head",
        default="linear",
        metavar="NAME",
        help="linear, attention or another registered head (default: linear)",
    )
    parser.add_argument(
        "--strategy",
        choices=("frozen", "full"),
        default="frozen",
        help="what is trained: the head alone, or everything (default: frozen)",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--per-class", type=int, metavar="N", help="use N labels per class")
    budget.add_argument("--fraction", type=float, metavar="F", help="use this share of each class")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.set_defaults(run=run_finetune)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options that ``finetune`` and ``evaluate`` share."""
    parser.add_argument("--csv", type=Path, help="table of a folder of images")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="resize the images of a folder to this side")
    parser.add_argument(
        "--organ",
        default="unknown",
        metavar="NAME",
        help=f"what the images of a folder show: {', '.join(Organ.__members__)}",
    )
    parser.add_argument(
        "--modality", default="unknown", metavar="NAME", help=f"how they were made: {', '.join(Modality.__members__)}"
    )
    parser.add_argument(
        "--channels",
        type=lambda word: int(word) if word.isdecimal() else word,
        default="auto",
        help="1, 3, keep, or auto: where grey and colour images are mixed, what most have (default: auto)",
    )
    parser.add_argument("--device", default="cpu", help="where the network runs: cpu, cuda (default: cpu)")
    parser.add_argument("--tracking-uri", metavar="URI", help="the model registry, when the model is NAME@ALIAS")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")


def run_finetune(arguments: argparse.Namespace) -> int:
    """Fine-tune, write the results, print the scores."""
    from data_shards.support.documents import parse
    from finetune.backbones import network_names
    from finetune.config import FinetuneConfig
    from finetune.runs import finetune
    from medformer.model_reference import local_model

    content = {name: value for name, value in vars(arguments).items() if name in FinetuneConfig.model_fields}
    config = parse(FinetuneConfig, content, "medformer finetune")
    with local_model(config.model, arguments.tracking_uri, networks=network_names()) as backbone:
        result = finetune(config, backbone, arguments.out, overwrite=arguments.overwrite)
    record, train = result.record, result.train
    print(
        f"{train.name}: {record.distinct_labelled_images} different labelled images of {len(train)}, seed {record.seed}"
    )
    if not train.official:
        print(f"note: not an official dataset: {train.note}")
    if result.shortage:
        print(f"note: {result.shortage}")
    for split, scores in result.scores.items():
        print(f"{split}: {scores.told}")
    print(arguments.out)
    return 0
