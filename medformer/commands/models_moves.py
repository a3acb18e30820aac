"""``medformer models promote``, ``unpromote`` and ``delete``: what a version is called, and that it is gone."""

from __future__ import annotations

import argparse


def add_promote_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``promote``."""
    parser.add_argument("reference", metavar="NAME:VERSION", help="NAME@ALIAS works as well")
    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument(
        "--not-worse",
        metavar="METRIC[:MARGIN]",
        action="append",
        default=[],
        help="refuse when the version is worse than the one that has the alias now by more than MARGIN (default: 0) "
        "and than the intervals of both allow; METRIC as in 'models diff', or its last words; may be repeated",
    )
    parser.set_defaults(run=run_promote)


def add_unpromote_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``unpromote``."""
    parser.add_argument("reference", metavar="NAME@ALIAS")
    parser.set_defaults(run=run_unpromote)


def add_delete_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``delete``."""
    parser.add_argument("reference", metavar="NAME:VERSION")
    parser.set_defaults(run=run_delete)


def run_promote(arguments: argparse.Namespace) -> int:
    """Move an alias; print where it was and where it is."""
    from cluster.gates import Requirement
    from cluster.registry import Registry

    requirements = [Requirement.parse(text) for text in arguments.not_worse]
    registry = Registry(arguments.tracking_uri)
    found = registry.resolve(arguments.reference)
    promotion = registry.promote(found.name, found.version, arguments.alias, not_worse=requirements)
    move, holds = promotion.move, promotion.holds
    if move.required:
        print(f"not worse: {move.required}")
    if holds != move:
        print(
            f"{found.name}@{move.alias} went to version {move.version}, and then {_where(holds.version)}, by "
            f"{holds.user}, who promoted at the same time"
        )
        return 0
    before = f", before: version {move.previous}" if move.previous else ""
    print(f"{found.name}@{move.alias} is now version {move.version}{before}")
    return 0


def run_unpromote(arguments: argparse.Namespace) -> int:
    """Take an alias away; print which version had it."""
    from cluster.errors import RegistryError
    from cluster.reference import parse_reference
    from cluster.registry import Registry

    wanted = parse_reference(arguments.reference)
    if wanted.alias is None:
        raise RegistryError(f"{arguments.reference!r}: which alias? expected NAME@ALIAS")
    promotion = Registry(arguments.tracking_uri).unpromote(wanted.name, wanted.alias)
    move, holds = promotion.move, promotion.holds
    print(f"{wanted.name}@{wanted.alias} is no more, before: version {move.previous}")
    if holds != move:
        print(f"{holds.user}, who promoted at the same time, then gave it {_where(holds.version)}")
    return 0


def run_delete(arguments: argparse.Namespace) -> int:
    """Delete a version; print what is left of it."""
    from cluster.errors import RegistryError
    from cluster.reference import parse_reference
    from cluster.registry import Registry

    wanted = parse_reference(arguments.reference)
    if wanted.version is None:
        raise RegistryError(f"{arguments.reference!r}: expected NAME:VERSION, so that it is clear what is deleted")
    deleted, gone = Registry(arguments.tracking_uri).delete(wanted.name, wanted.version)
    print(f"deleted {deleted.name}:{deleted.version}; what it was called, and when, stays in 'models show'")
    if not gone:
        print(f"its files are not removed from {deleted.place}: the store keeps them, or another version has them too")
    return 0


def _where(version: str | None) -> str:
    return "nowhere: it was taken away" if version is None else f"to version {version}"
