"""``medformer models diff``: in what two versions differ."""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import groupby

from medformer.commands.text_table import print_table

_NARROWEST = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Compare two versions: network, configuration, data and metrics. Only what differs is printed; weights are "
        "compared by their SHA-256."
    )
    parser.add_argument("left", metavar="MODEL", help="NAME@ALIAS or NAME:VERSION")
    parser.add_argument("right", metavar="MODEL", help="the other one; it may have another name")
    parser.add_argument("--json", action="store_true", help="print the differences, in full, as one JSON document")
    parser.set_defaults(run=run_diff)


def run_diff(arguments: argparse.Namespace) -> int:
    """Print a table per section of what differs."""
    from cluster.diff import difference
    from cluster.registry import Registry

    found = difference(Registry(arguments.tracking_uri), arguments.left, arguments.right)
    left, right = (f"{each.name}:{each.version}" for each in (found.left, found.right))
    if arguments.json:
        lines = [
            {"section": each.section, "key": each.key, "left": each.left, "right": each.right} for each in found.lines
        ]
        print(json.dumps({"left": left, "right": right, "differences": lines}, indent=2))
        return 0
    if not found.lines:
        print(f"{left} and {right} do not differ")
    width = max(_NARROWEST, (shutil.get_terminal_size((160, 24)).columns - 50) // 2)
    for section, each in groupby(found.lines, lambda line: line.section):
        print(f"{section}")
        rows = [(f"  {line.key}", _cell(line.left, width), _cell(line.right, width)) for line in each]
        print_table(("", left, right), rows)
        print()
    return 0


def _cell(text: str | None, width: int) -> str:
    if text is None:
        return "-"
    return text if len(text) <= width else f"{text[: width - 3]}..."
