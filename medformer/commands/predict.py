"""``medformer predict``: apply a fitted classifier to new images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medformer.commands.data_options import add_new_images_options, document

if TYPE_CHECKING:
    from finetune.predictions import PredictResult


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``predict`` to the command line."""
    parser = subparsers.add_parser(
        "predict",
        help="apply a fitted classifier to new images",
        description="Apply a fitted classifier to new images, which go through the same preparation as those it was "
        "fitted on; what does not fit is refused. Labels are not needed; where there are any, predictions are scored.",
    )
    add_new_images_options(parser, "folder of images, MedMNIST npz, or folder of shards")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the table, such as predictions.csv")
    parser.add_argument(
        "--instances",
        type=Path,
        metavar="FOLDER",
        help="what is said of each image of a bag, or of each place in an image, by a head that tells of them",
    )
    parser.set_defaults(run=run_predict)


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict, write the table, say what came out."""
    from finetune.config import PredictConfig
    from finetune.predictions import predict
    from finetune.progress import watched
    from medformer.model_reference import local_model

    config = document(arguments, PredictConfig, "medformer predict")
    with local_model(config.classifier, arguments.tracking_uri) as folder, watched():
        result = predict(
            config, Path(folder), arguments.out, overwrite=arguments.overwrite, instances=arguments.instances
        )
    if result.fitted_on:
        print(
            f"warning: the classifier was fitted on images of {result.fitted_on} of these {len(result.cases)} cases: "
            "what it says of those does not show how good it is",
            file=sys.stderr,
        )
    for line in told(result):
        print(line)
    print(arguments.out)
    if arguments.instances is not None:
        print(arguments.instances)
    return 0


def told(result: PredictResult) -> list[str]:
    """What came out, in words."""
    said, cases = result.prediction, result.cases
    lines = [f"{cases.name}: warning: {warning}" for warning in cases.warnings]
    lines.append(f"{len(cases)} cases predicted")
    if said.abstains is not None:
        lines.append(result.coverage)
        lines.append(f"{int(said.abstains.sum())} of {len(cases)} have no single answer at that coverage")
    elif result.coverage:
        lines.append(result.coverage)
    lines += [f"when it was made: {line}" for line in result.estimated]
    if result.scores is not None:
        lines.append(f"these cases: {result.scores.told}")
    return lines
