"""What a benchmark hands back, and how it is written down."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Table:
    """One benchmark's figures.

    Attributes:
        title: what was measured.
        command: how to repeat it.
        columns: headings.
        rows: one line each, as text; none where it could not be measured.
        remarks: what a reader has to know to read the figures.
    """

    title: str
    command: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: str

    def markdown(self) -> str:
        """The table as a section of a document."""
        lines = [
            f"## {self.title}",
            "",
            f"`{self.command}`",
            "",
        ]
        if self.rows:
            lines += [_line(self.columns), _line(["---"] * len(self.columns)), *map(_line, self.rows), ""]
        return "\n".join([*lines, self.remarks, ""])


def machine() -> str:
    """The machine in one line."""
    return f"{os.cpu_count()} {platform.machine()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"
