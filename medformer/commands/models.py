"""``medformer models``: what the registry holds, and getting models in and out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medformer.commands.models_sizes import add_arguments as add_sizes_arguments
from medformer.commands.text_table import print_table

if TYPE_CHECKING:
    from cluster.registry import Registry


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``models`` and its verbs to the command line."""
    parser = subparsers.add_parser(
        "models",
        help="list, show, publish, promote and pull models of the registry; sizes of the backbone",
        description="The model registry, where a model is named NAME@ALIAS or NAME:VERSION, and the sizes of the "
        "backbone.",
    )
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="sqlite:///FILE or http://HOST:PORT (default: $MLFLOW_TRACKING_URI, else the user's own store)",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    verb = verbs.add_parser("list", parents=[store], help="every model with its newest version and aliases")
    verb.set_defaults(run=run_list)

    verb = verbs.add_parser("show", parents=[store], help="versions, files and alias history of one model")
    verb.add_argument("name", metavar="NAME")
    verb.set_defaults(run=run_show)

    verb = verbs.add_parser(
        "publish", parents=[store], help="store a bundle, classifier or generator as the next version of a name"
    )
    verb.add_argument(
        "bundle", metavar="FOLDER", type=Path, help="the bundle that pretraining wrote, or the classifier/ of finetune"
    )
    verb.add_argument("--name", required=True, help="the model's name in the registry")
    verb.add_argument("--alias", help="also give it this alias")
    verb.set_defaults(run=run_publish)

    verb = verbs.add_parser("promote", parents=[store], help="give an alias to a version; the move is recorded")
    verb.add_argument("reference", metavar="NAME:VERSION", help="NAME@ALIAS works as well")
    verb.add_argument("alias", metavar="ALIAS")
    verb.set_defaults(run=run_promote)

    verb = verbs.add_parser("pull", parents=[store], help="copy a model out of the registry, checked by SHA-256")
    verb.add_argument("reference", metavar="MODEL", help="NAME@ALIAS or NAME:VERSION")
    verb.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: a folder called like the model)")
    verb.set_defaults(run=run_pull)

    add_sizes_arguments(verbs.add_parser("sizes", help="parameters and operations of the backbone in all its sizes"))


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line per model."""
    registry = _registry(arguments)
    models = registry.list()
    if not models:
        print(f"no models yet in {registry.store.shown}")
        return 0
    rows = [(model.name, model.latest_version or "-", _aliases(model.aliases), model.updated) for model in models]
    print_table(("NAME", "NEWEST", "ALIASES", "UPDATED"), rows)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print the versions, the files of the newest one, and who had which alias when."""
    details = _registry(arguments).show(arguments.name)
    print(f"{details.name}   {_aliases(details.aliases)}\n")
    rows = [
        (
            published.version,
            ", ".join(published.aliases) or "-",
            published.architecture,
            _size(published.size_bytes),
            published.digest[:12],
            published.run_id or "-",
            published.created,
        )
        for published in details.versions
    ]
    print_table(("VERSION", "ALIASES", "ARCHITECTURE", "SIZE", "SHA-256", "RUN", "PUBLISHED"), rows)
    if details.versions:
        newest = details.versions[0]
        print(f"\nfiles of version {newest.version}")
        files = [(name, _size(entry.size_bytes), entry.sha256) for name, entry in sorted(newest.files.items())]
        print_table(("FILE", "SIZE", "SHA-256"), files)
    if details.history:
        print("\nalias history")
        moves = [
            (move.time[:19], move.alias, move.previous or "-", move.version, move.user) for move in details.history
        ]
        print_table(("TIME (UTC)", "ALIAS", "FROM", "TO", "BY"), moves)
    for alias in details.unrecorded:
        versions = [move.version for move in details.history if move.alias == alias]
        recorded = f"the last move recorded gave it to {versions[-1]}" if versions else "no move of it is recorded"
        now = f"version {details.aliases[alias]}" if alias in details.aliases else "gone"
        print(
            f"note: {alias!r} is {now}, but {recorded}: it was moved by something other than medformer, or a "
            "promotion was cut off; promoting it again puts both right"
        )
    return 0


def run_publish(arguments: argparse.Namespace) -> int:
    """Store a bundle; print the name under which it can be pulled."""
    registry = _registry(arguments)
    published = registry.publish(arguments.bundle, arguments.name)
    print(f"published {published.name}:{published.version} ({_size(published.size_bytes)})")
    if arguments.alias:
        registry.promote(published.name, published.version, arguments.alias)
        print(f"{published.name}@{arguments.alias} is now version {published.version}")
    return 0


def run_promote(arguments: argparse.Namespace) -> int:
    """Move an alias; print where it was and where it is."""
    registry = _registry(arguments)
    found = registry.resolve(arguments.reference)
    promotion = registry.promote(found.name, found.version, arguments.alias)
    move, holds = promotion.move, promotion.holds
    if holds != move:
        print(
            f"{found.name}@{move.alias} went to version {move.version}, and then to version {holds.version}, by "
            f"{holds.user}, who promoted at the same time"
        )
        return 0
    before = f", before: version {move.previous}" if move.previous else ""
    print(f"{found.name}@{move.alias} is now version {move.version}{before}")
    return 0


def run_pull(arguments: argparse.Namespace) -> int:
    """Copy a model; print the folder."""
    registry = _registry(arguments)
    print(registry.pull(arguments.reference, arguments.out or Path(registry.resolve(arguments.reference).name)))
    return 0


def _registry(arguments: argparse.Namespace) -> Registry:
    from cluster.registry import Registry

    return Registry(arguments.tracking_uri)


def _aliases(aliases: Mapping[str, str]) -> str:
    return ", ".join(f"{alias} -> {version}" for alias, version in aliases.items()) or "-"


def _size(count_bytes: int) -> str:
    size = float(count_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
