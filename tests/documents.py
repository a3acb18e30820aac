"""The documents of the repository and the fenced blocks in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = "not run"
"""Stands behind the language of a block that is shown and cannot be run; a reason follows it."""

_FENCE = re.compile(r"^```(\w*)[ ]*([^\n]*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Fenced code.

    Attributes:
        path: of the document.
        line: of the fence.
        language: its first word; empty for none.
        note: what stands behind the language.
        code: the lines between the fences.
    """

    path: Path
    line: int
    language: str
    note: str
    code: str

    def __str__(self) -> str:
        return f"{name_of(self.path)}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether the document says nothing else."""
        return not self.note.startswith(NOT_RUN)

    @property
    def lines(self) -> Iterator[list[str]]:
        """The words of each command; continued lines are one, comments are left out."""
        for line in self.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def all_blocks(path: Path) -> list[Block]:
    text = path.read_text()
    return [Block(path, text.count("\n", 0, found.start()) + 1, *found.groups()) for found in _FENCE.finditer(text)]


def blocks(path: Path, *languages: str) -> list[str]:
    """The code of a document in some languages, where it runs; ``text`` is output and pictures."""
    return [block.code for block in all_blocks(path) if block.language in languages and block.runs]


def command_lines(path: Path, program: str) -> list[list[str]]:
    """The words of every shell line of a document that calls ``program``, comments and environment left out."""
    lines = [words for block in all_blocks(path) if block.language == "sh" and block.runs for words in block.lines]
    return [words for words in lines if words[0] == program]


def without_code(path: Path) -> str:
    """The text of a document outside of its blocks."""
    return _FENCE.sub("", path.read_text())
