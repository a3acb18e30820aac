"""The ``medformer`` command: finds the command, runs it, and turns errors into one line and an exit status.

Only the module of the chosen command is imported, so help and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from data_shards.support.errors import MedformerError, nearest
from medformer import __version__
from medformer.extras import EXTRA_OF, remedy
from medformer.signals import EXIT_TERMINATED, terminated_in_order

# Each name is a module of medformer.commands with ``register(subparsers)``; the text is its line in the overview.
COMMANDS = {
    "demo": "the main job end to end, small, on this machine",
    "doctor": "what is installed, what works, what is missing",
    "shards": "build and inspect data shards",
    "views": "look at augmented images, and at what is valid for which",
    "pretrain": "pretrain a backbone on shards, on a local or a remote Ray cluster",
    "plan": "what a pretraining needs: memory, time, checkpoints",
    "search": "hyper-parameters and architectures of a pretraining or a fine-tuning",
    "jobs": "submit pretraining to a Ray cluster over HTTP; list, follow and stop it",
    "models": "list, show, promote and pull models of the registry",
    "finetune": "adapt a model to a few labelled images",
    "predict": "apply a fitted classifier to new images",
    "robustness": "how a fitted classifier does when acquisition changes the images",
    "explain": "why a fitted classifier says what it says of images",
    "report": "the page of a finished run: what was found, how sure, every case",
    "embed": "features of images by a frozen model",
    "evaluate": "kNN, linear probe and few-label comparison of models",
    "completion": "the script by which a shell completes commands",
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the words after ``medformer``; the default is those of this process.

    Returns:
        The exit status: that of the command, 2 for an error the user can put right, 130 after Ctrl-C. SIGTERM
        ends the process with 143.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            status = _run(words)
        except SystemExit as end:
            sys.stdout.flush()
            if end.code == EXIT_TERMINATED:
                print("medformer: terminated", file=sys.stderr)
            raise
        sys.stdout.flush()
        return status
    except MedformerError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        return _fail(f"this command needs {package}, which is not installed: {remedy(package)}")
    except KeyboardInterrupt:
        print("medformer: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`medformer ... | head`); nothing may be written at interpreter exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


class _Parser(argparse.ArgumentParser):
    """One that takes options only as they are written; those of subcommands are made by this class too.

    An abbreviation would stop working, or come to mean something else, with the next option that begins like it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})


def build_parser(*chosen: str) -> argparse.ArgumentParser:
    """The parser with the options of the ``chosen`` commands; the others are only listed."""
    parser = _Parser(
        prog="medformer",
        description="Pretrain medical-imaging foundation models; adapt them to few labels.",
        epilog="'medformer COMMAND --help' explains a command. Not for clinical use.",
    )
    parser.add_argument("--version", action="version", version=f"medformer {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name in chosen:
            import_module(f"medformer.commands.{name}").register(subparsers)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """The parsed words of one command line, the first of which is the name of a command.

    argparse gives positional words out only once, so ``key=value`` behind an option is left over, and its remedy,
    ``parse_intermixed_args``, does not know subparsers. Here a command that declares ``overrides`` gets such words.

    Raises:
        SystemExit: help was asked for, or a word is not one the command takes.
    """
    parser = build_parser(words[0])
    arguments, left = parser.parse_known_args(words)
    behind = [word for word in left if "overrides" in arguments and re.match("[^-=][^=]*=", word)]
    if refused := [word for word in left if word not in behind]:
        parser.error(f"unrecognized arguments: {' '.join(refused)}")
    if behind:
        arguments.overrides = [*arguments.overrides, *behind]
    return arguments


def _run(words: list[str]) -> int:
    if not words:
        build_parser().print_help()
        return EXIT_ERROR
    first = words[0]
    if not first.startswith("-") and first not in COMMANDS:
        raise MedformerError(f"unknown command {first!r}{nearest(first, COMMANDS)}")
    arguments = parse_words(words)
    with terminated_in_order():
        return int(arguments.run(arguments))


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"medformer: error: {line}", file=sys.stderr)
    return EXIT_ERROR
