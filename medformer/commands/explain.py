"""``medformer explain``: why a fitted classifier says what it says of images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medformer.commands.data_options import add_new_images_options, document


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``explain`` to the command line."""
    given = argparse.SUPPRESS
    parser = subparsers.add_parser(
        "explain",
        help="why a fitted classifier says what it says of images",
        description="Maps of what speaks for a class, on the grid of each image, with a page to look through them; or "
        "a tree that answers as the classifier does. Images are prepared as predict prepares them.",
    )
    add_new_images_options(parser, "folder of images, MedMNIST npz, or folder of shards")
    parser.add_argument(
        "--method",
        required=True,
        metavar="NAME",
        help="grad_cam, integrated_gradients, rollout, occlusion, instances or soft_tree",
    )
    parser.add_argument(
        "--classes", nargs="+", default=given, metavar="NAME",
        help="which classes are explained: names, predicted or all (default: predicted)",
    )  # fmt: skip
    parser.add_argument("--cases", nargs="+", default=given, metavar="KEY", help="of these cases alone (default: all)")
    parser.add_argument(
        "--sanity", action="store_true", default=given,
        help="check that maps change when the weights of the classifier are shuffled, layer by layer",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=given, help="of what is drawn (default: 0)")
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="options of the method and more, such as options.block=4 or sanity_cases=32",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the folder that appears")
    parser.set_defaults(run=run_explain)


def run_explain(arguments: argparse.Namespace) -> int:
    """Explain, write the folder, say what came out."""
    from finetune.explain.document import ExplainConfig
    from finetune.explain.run import PAGE, explain, notes_of
    from finetune.progress import watched
    from medformer.model_reference import local_model

    config = document(arguments, ExplainConfig, "medformer explain")
    with local_model(config.classifier, arguments.tracking_uri) as folder, watched():
        result = explain(config, Path(folder), arguments.out, overwrite=arguments.overwrite)
    for note in notes_of(result):
        print(f"note: {note}", file=sys.stderr)
    if result.drawn is not None:
        print(result.drawn.text, end="")
        print(arguments.out)
        return 0
    print(f"{len(result.rows)} maps of {len(result.cases)} cases")
    print(arguments.out / PAGE)
    return 0
