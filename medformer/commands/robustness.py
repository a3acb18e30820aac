"""``medformer robustness``: how much worse a fitted classifier becomes when acquisition changes the images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medformer.commands.data_options import add_new_images_options, document


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``robustness`` to the command line."""
    given = argparse.SUPPRESS
    parser = subparsers.add_parser(
        "robustness",
        help="how a fitted classifier does when acquisition changes the images",
        description="Scores and calibration on labelled images as they are, and with noise, blur, less contrast, lower "
        "resolution and other changes in five severities. Images are prepared as predict prepares them.",
    )
    add_new_images_options(parser, "labelled images: folder, MedMNIST npz, or folder of shards")
    parser.add_argument("--corruptions", nargs="+", default=given, metavar="NAME", help="which (default: all)")
    parser.add_argument(
        "--severities", nargs="+", type=int, default=given, metavar="N", help="of 1 to 5 (default: all)"
    )
    parser.add_argument("--seed", type=int, default=given, help="of what is drawn (default: 0)")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the folder that appears")
    parser.set_defaults(run=run_robustness)


def run_robustness(arguments: argparse.Namespace) -> int:
    """Measure, write the folder, say what came out."""
    from finetune.progress import watched
    from finetune.shift.document import RobustnessConfig
    from finetune.shift.run import PAGE, robustness
    from finetune.shift.wording import told
    from medformer.model_reference import local_model

    config = document(arguments, RobustnessConfig, "medformer robustness")
    with local_model(config.classifier, arguments.tracking_uri) as folder, watched():
        result = robustness(config, Path(folder), arguments.out, overwrite=arguments.overwrite)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    for line in told(result.found):
        print(line)
    print(arguments.out / PAGE)
    return 0
