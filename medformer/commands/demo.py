"""``medformer demo``: the main job end to end, small, on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="the main job end to end, small, on this machine",
        description="Turn images into shards, pretrain a small backbone on them under Ray and DeepSpeed, register it, "
        "pull it back, fine-tune it on few labels and compare it with the same network from scratch: about a "
        "quarter of an hour on two CPU cores.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="MedMNIST files; without it they are downloaded, and where that fails synthetic phantoms are used",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="output folder (default: runs/demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output of an earlier demonstration")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.add_argument("--per-class", type=_numbers, default=(10, 50), metavar="N,N", help="label budgets (10,50)")
    parser.add_argument("--seeds", type=_numbers, default=(0, 1, 2), metavar="N,N", help="draws (0,1,2)")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: the user's own)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the pretraining document")
    parser.set_defaults(run=run_demo)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run it; the table goes to the terminal, the page into ``--out``."""
    from medformer.demo.run import Options, run

    run(
        Options(
            out=arguments.out,
            data=arguments.data,
            seed=arguments.seed,
            per_class=arguments.per_class,
            seeds=arguments.seeds,
            tracking_uri=arguments.tracking_uri,
            overrides=arguments.overrides,
            overwrite=arguments.overwrite,
        )
    )
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))
