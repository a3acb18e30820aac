"""``medformer completion``: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.vocabulary import Modality, Organ

# Of registries that import torch, written out here.
_HEADS = ("attention", "linear", "mil", "spd")
_STRATEGIES = ("frozen", "full", "low_rank", "selective", "two_stage")
NAMES: dict[str, tuple[str, ...]] = {
    "organ": tuple(Organ.__members__),
    "modality": tuple(Modality.__members__),
    "kinds": (*Organ.__members__, *Modality.__members__),
    "head": _HEADS,
    "heads": _HEADS,
    "strategy": _STRATEGIES,
    "strategies": _STRATEGIES,
    "ensemble": ("none", "folds", "seeds", "snapshots"),
    "alignment": ("adversarial", "coral"),
    "method": ("grad_cam", "instances", "integrated_gradients", "occlusion", "rollout", "soft_tree"),
    "reads": ("embedding", "mean", "mean_spread", "embedding_mean_spread"),
    "baselines": ("resnet18", "tangent"),
    "corruptions": (
        "bias_field",
        "blur",
        "brightness",
        "contrast",
        "gamma",
        "ghosting",
        "noise",
        "resolution",
        "rician",
        "spike",
        "thick_slices",
    ),
    "channels": ("1", "3", "keep", "auto"),
    "device": ("cpu", "cuda"),
}
"""Words by the destination of the option that takes them and more: argparse leaves them to the typed documents."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``completion`` to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help="the script by which a shell completes commands",
        description="Print the script by which a shell completes commands, options, names and files. It is "
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
    _complete(parser, NAMES | _names_of_sources(), shtab.FILE)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _names_of_sources() -> dict[str, tuple[str, ...]]:
    from data_shards.sources.base import registered_sources
    from data_shards.sources.medmnist.sets import CONTENT
    from medformer.commands.data_options import TASKS

    return {"source": tuple(registered_sources()), "sets": tuple(CONTENT), "task": TASKS}


def _complete(parser: argparse.ArgumentParser, names: Mapping[str, tuple[str, ...]], files: Any) -> None:
    """Have paths completed as files and names from their list, in the parsers of subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete(below, names, files)
        elif action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
        elif action.choices is None and action.dest in names:
            action.choices = names[action.dest]
