"""The files of ``deploy/``, read as the programs that they are for read them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from tests.documents import ROOT

DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())


def versions() -> dict[str, str]:
    """The exact versions of ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split(";")[0].strip().split("==") for line in lines if "==" in line)


def manifests(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def header(path: Path) -> str:
    """The first comment of a file, without its marks; continued lines are one."""
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("#!"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def shown_commands(path: Path) -> list[list[str]]:
    """The words of every command that the header of a file shows: its lines that are indented."""
    found = []
    for line in header(path).splitlines():
        if line.startswith("  ") and line.strip():
            text = re.split(r"\s{3,}", line.strip())[0]
            found += [shlex.split(part) for part in re.split(r"\s&&\s", text)]
    return found


def commands_of(words: list[str], program: str) -> list[list[str]]:
    """What stands behind each ``program`` of a shell line."""
    return [words[place + 1 :] for place, word in enumerate(words) if Path(word).name == program]
