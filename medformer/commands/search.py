"""``medformer search``: hyper-parameters and architectures over a pretraining or a fine-tuning."""

from __future__ import annotations

import argparse
from pathlib import Path

STOPPED = 3
"""Exit status of a search that was asked to stop and can go on."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "search",
        help="hyper-parameters and architectures of a pretraining or a fine-tuning",
        description="Try what the space of CONFIG says over a pretraining or a fine-tuning document, with Ray Tune on "
        "this machine or on the cluster named by address, and write the document of the best trial. Judged is what the "
        "document names, never a test split.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the YAML document of the search")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace single values, such as trials=20")
    parser.add_argument("--resume", action="store_true", help="go on with the search in out")
    parser.set_defaults(run=run_search)


def run_search(arguments: argparse.Namespace) -> int:
    """Search; print the best trials and where the document of the best one is."""
    from cluster.search.document import SearchConfig
    from cluster.search.search import search
    from data_shards.support.documents import load
    from medformer.search_kinds import kind_of

    config = load(SearchConfig, arguments.config, arguments.overrides)
    found = search(config, kind_of(config), resume=arguments.resume)
    if found is None:
        print("stopped as asked; --resume goes on")
        return STOPPED
    print(f"best: {found.winner.told(config.metric)}")
    print(f"all trials: {found.table}")
    verb = "pretrain" if config.pretrain else "finetune --config"
    print(f"its document: medformer {verb} {found.document}")
    return 0
