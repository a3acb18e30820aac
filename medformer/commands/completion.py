"""``medformer completion``: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``completion`` to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help="the script by which a shell completes commands",
        description="Print the script by which a shell completes commands, options, their choices and files. It is "
        "made once; completing starts no Python.",
        epilog="bash: medformer completion bash > ~/.local/share/bash-completion/completions/medformer",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which one")
    parser.set_defaults(run=run_completion)


def run_completion(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from medformer.cli import COMMANDS, build_parser

    parser = build_parser(*COMMANDS)
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Have every argument that is a path completed as one, in the parsers of subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below, files)
        elif action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
