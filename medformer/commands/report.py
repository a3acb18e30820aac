"""``medformer report``: the page of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``report`` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="the page of a finished run: what was found, how sure, every case",
        description="Make the page of a fine-tuning, an evaluation or a demonstration again from its folder. It is one "
        "file that needs no network, and holds no image unless --images or --explanations asks for them.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what finetune, evaluate or demo wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: report.html in the folder)")
    parser.add_argument(
        "--images", action="store_true", help="show the images of the cases, read again from the data of the run"
    )
    parser.add_argument(
        "--explanations", type=Path, metavar="FOLDER", help="what explain wrote of the same cases: show its maps"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="P",
        help="of two classes: above which probability a case counts as the class that is looked for",
    )  # fmt: skip
    parser.add_argument(
        "--positive", metavar="CLASS", help="of two classes: the one that is looked for (default: the second)"
    )
    parser.set_defaults(run=run_report)


def run_report(arguments: argparse.Namespace) -> int:
    """Write the page, say where it is."""
    from finetune.progress import watched
    from finetune.reported import PageOptions, report

    options = PageOptions(arguments.images, arguments.explanations, arguments.threshold, arguments.positive)
    with watched():
        print(report(arguments.folder, arguments.out, options))
    return 0
