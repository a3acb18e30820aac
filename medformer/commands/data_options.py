"""What commands that read labelled or new images share: their options, and documents with keys that are set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeVar

from data_shards.vocabulary import Modality, Organ, Task

Content = TypeVar("Content")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """How images are read and what they show."""
    group = parser.add_argument_group("images in a folder")
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument("--csv", type=Path, help="table of the images; without it sub-folders are classes", **given)
    group.add_argument(
        "--labels",
        nargs="+",
        metavar="COLUMN",
        help="of the table; several for a multi-label task (default: label)",
        **given,
    )
    group.add_argument("--size", type=int, metavar="PIXELS", help="resize images to this side", **given)
    group.add_argument("--organ", metavar="NAME", help=f"what they show: {', '.join(Organ.__members__)}", **given)
    group.add_argument(
        "--modality", metavar="NAME", help=f"how they were made: {', '.join(Modality.__members__)}", **given
    )
    group.add_argument(
        "--task",
        metavar="NAME",
        help=f"how labels are read: {', '.join(name for name in Task.__members__ if name in TASKS)} (default: by what "
        "they look like)",
        **given,
    )
    group.add_argument(
        "--channels",
        type=lambda word: int(word) if word.isdecimal() else word,
        help="1, 3, keep, or auto: where grey and colour images are mixed, what most have (default: auto)",
        **given,
    )
    add_reading_options(group)


def add_new_images_options(parser: argparse.ArgumentParser, data: str) -> None:
    """A fitted classifier, the images that it is applied to, and where that runs.

    Args:
        parser: of the command.
        data: what ``--data`` is.
    """
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("classifier", metavar="CLASSIFIER", help="what finetune wrote, or NAME@ALIAS of the registry")
    parser.add_argument("--data", required=True, type=Path, help=data)
    parser.add_argument("--csv", type=Path, help="table of the images", **given)
    parser.add_argument("--split", metavar="NAME", help="of an archive or of shards (default: all)", **given)
    add_reading_options(parser)
    add_run_options(parser)


def add_reading_options(group: argparse._ActionsContainer) -> None:
    """What is to be known of single files; also of new images, which are prepared as those before them were."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--missing",
        nargs="*",
        metavar="TEXT",
        help="labels that say nothing, beside the empty cell (default: NA, NaN, None, null, '.', '-', '?' ...)",
        **given,
    )
    group.add_argument(
        "--on-error", choices=("stop", "skip"), help="images that cannot be read (default: stop)", **given
    )
    group.add_argument(
        "--show-paths",
        action="store_true",
        help="results and messages have names of files; they must identify nobody",
        **given,
    )


TASKS = ("binary", "multiclass", "multilabel", "ordinal", "regression")
"""How labels can be read."""


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """In what parts frozen networks read large images."""
    given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument(
        "--window",
        type=lambda word: int(word) if word.isdecimal() else word,
        nargs="+",
        metavar="VOXELS",
        help="read larger images in windows of this side, or of these sides, and blend what a frozen network says of "
        "them; none: whole (default: that of the crops a model was trained on, for volumes)",
        **given,
    )
    parser.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of neighbouring windows (default: 0.5)", **given
    )


def add_document_options(parser: argparse.ArgumentParser) -> None:
    """A document in place of options, and any key of it."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with these options and more")
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the document, such as prepare.spacing_mm=2 or options.frames=all",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Where it runs, and what may be replaced."""
    parser.add_argument("--device", default=argparse.SUPPRESS, help="where the network runs: cpu, cuda (default: cpu)")
    parser.add_argument("--tracking-uri", metavar="URI", help="the model registry, when the model is NAME@ALIAS")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def document(arguments: argparse.Namespace, model: type[Content], origin: str) -> Content:
    """The document that file, options and set keys make together; later ones count.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong type.
    """
    from data_shards.support.documents import apply_overrides, parse, read_mapping

    content: dict[str, Any] = read_mapping(arguments.config) if getattr(arguments, "config", None) else {}
    fields = model.model_fields  # type: ignore[attr-defined]
    content |= {name: value for name, value in vars(arguments).items() if name in fields}
    apply_overrides(content, getattr(arguments, "overrides", []))
    return parse(model, content, origin)  # type: ignore[type-var]
