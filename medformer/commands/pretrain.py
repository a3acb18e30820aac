"""``medformer pretrain``: train a backbone on shards, on Ray, and register it; or the generator of BrainFuse."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

STOPPED = 3
"""Exit status of a run that was asked to stop and can go on."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "pretrain",
        help="pretrain a backbone on shards, on a local or a remote Ray cluster",
        description="Run the pretraining that CONFIG describes, on an embedded local Ray or on the cluster named by "
        "cluster.address. 'torchrun -m pretrain CONFIG' runs the same document without Ray. A document with a section "
        "'generator' trains the generator of BrainFuse, in this process.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the YAML document of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace single values, such as seed=1")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in out")
    parser.add_argument("--workers", metavar="N or MIN:MAX", help="training processes, in place of cluster.workers")
    parser.set_defaults(run=run_pretrain)


def _again(arguments: argparse.Namespace) -> str:
    """The command that goes on with a run, to be pasted into a shell."""
    return shlex.join(["medformer", "pretrain", str(arguments.config), *arguments.overrides, "--resume"])


def run_pretrain(arguments: argparse.Namespace) -> int:
    """Pretrain; print where the bundle is."""
    from cluster.launch import launch
    from data_shards.support.documents import load, read_mapping
    from pretrain.config import PretrainConfig

    if arguments.workers:
        arguments.overrides.append(f"cluster.workers={arguments.workers}")
    if "generator" in read_mapping(arguments.config):
        from pretrain.brainfuse.training import GeneratorRun, train_generator

        run = load(GeneratorRun, arguments.config, arguments.overrides)
        print(f"generator bundle: {train_generator(run, resume=arguments.resume)}")
        return 0
    from medformer.pulled_models import with_pulled_models

    config = with_pulled_models(load(PretrainConfig, arguments.config, arguments.overrides))
    bundle = launch(config, resume=arguments.resume)
    if bundle is None:
        if not config.out.exists():
            print("stopped as asked, before anything was trained")
            return STOPPED
        print(f"stopped as asked; {_again(arguments)} goes on")
        return STOPPED
    print(f"model bundle: {bundle}")
    return 0
