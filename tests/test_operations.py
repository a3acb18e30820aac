"""The page on operations: its messages are those of the code, its versions and files those of the repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from medformer import __version__
from tests.deploy.files import FILES, shown_commands
from tests.documents import ROOT
from tests.test_document_blocks import PROGRAMS

PAGE = ROOT / "docs" / "operations.md"
CLUSTERS = ROOT / "docs" / "howto" / "kubernetes-and-slurm.md"
HOLE = "…"
DOCUMENT = "configs/medmnist-nano.yaml"
PACKAGES = ("data_shards", "pretrain", "cluster", "medformer")


def templates() -> Iterator[str]:
    """Every text of the code; what is filled in is a hole."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def messages() -> list[str]:
    """The first column of the table of failures."""
    section = PAGE.read_text().partition("## What a failure looks like")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`+)(.+?)\1 \|", section, flags=re.MULTILINE)
    return [message for _, message in rows]


def is_of(message: str, template: str) -> bool:
    """Whether a message, with its holes, is what a template says: in both, a hole stands for anything."""
    parts = [part for part in message.split(HOLE) if part.strip(" :;,.")]
    place = 0
    for part in parts:
        found = template.find(part.strip(), place)
        if found < 0:
            return False
        place = found + len(part.strip())
    return bool(parts)


def test_every_message_of_the_page_is_one_that_the_code_can_say() -> None:
    known = list(templates())
    known += ["No space left on device"]  # of the system
    told = messages()
    assert len(told) >= 15
    assert [message for message in told if not any(is_of(message, template) for template in known)] == []
    assert not any(is_of("tracking server … is tired: …", template) for template in known)


def test_the_table_of_what_was_checked_names_every_file_of_deploy() -> None:
    section = CLUSTERS.read_text().partition("| file | checked |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w*.-]+)`", "\n".join(row.split("|")[1] for row in section.strip().splitlines())))
    assert {path.name for path in FILES if not any(Path(path.name).match(name) for name in named)} == set()


def test_the_image_of_the_page_is_that_of_the_manifests() -> None:
    assert f"-t medformer:{__version__} ." in CLUSTERS.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_commands_in_the_header_of_a_file_are_ones_that_their_programs_take(path: Path) -> None:
    commands = shown_commands(path)
    assert commands
    for words in commands:
        program = Path(words[0]).name
        if program in ("sudo", "export"):
            continue
        # The document of the user.
        PROGRAMS[program]([DOCUMENT if word == "pretrain.yaml" else word for word in words[1:]], path)
