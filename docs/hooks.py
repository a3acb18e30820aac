"""What MkDocs does not do by itself: pages and files beside ``docs/``, the page of the commands, links to code."""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BESIDE = "repository"
"""Folder of the site with what lies beside ``docs/``, under its path in the repository."""
PAGES = ("CONTRIBUTING.md", "benchmarks/RESULTS.md", "benchmarks/STUDIES.md")
_EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb"))
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>~?(?:[\w.]*\.)?(\w+)</code>")
_NOTE = re.compile(r"^(```\w+) [^\n]*$", flags=re.MULTILINE)
_COLUMNS = "100"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside ``docs/``, the files that any page links to, and the page of the commands."""
    for page in PAGES:
        files.append(File.generated(config, f"{BESIDE}/{page}", abs_src_path=str(ROOT / page)))
    for example in _EXAMPLES:
        files.append(File.generated(config, _place(example), content=as_page(example)))
    files.append(File.generated(config, "commands.md", content=commands()))
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    linked = {target for page in pages for target in _targets(page)}
    for target in sorted(linked):
        if not target.is_relative_to(DOCS) and files.get_file_from_path(_place(target)) is None:
            if not target.is_file():
                raise PluginError(f"{target.relative_to(ROOT)}: only files can be linked to")
            files.append(File.generated(config, _place(target), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as the site has its files; notes behind the language of a block are for the tests alone."""
    source = _source(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        target = (source.parent / found[1]).resolve()
        if not target.exists():
            return found[1]  # MkDocs says so
        return posixpath.relpath(_place(target), posixpath.dirname(page.file.src_uri) or ".")

    return _NOTE.sub(r"\1", _LINK.sub(moved, markdown))


def on_page_content(html: str, **_: Any) -> str:
    """References of docstrings, whose roles are those of Sphinx, as the name alone."""
    return _ROLE.sub(r"<code>\1</code>", html)


def commands() -> str:
    """The help of every command, as a page."""
    from medformer.cli import COMMANDS, build_parser

    os.environ["COLUMNS"] = _COLUMNS
    parts = ["# Commands\n\nWhat `medformer COMMAND --help` prints; made from the parsers themselves.\n"]
    for name in COMMANDS:
        for parser in _below(build_parser(name), name):
            depth = "##" if parser.prog.count(" ") == 1 else "###"
            parts.append(f"{depth} {parser.prog}\n\n```text\n{parser.format_help()}```\n")
    return "\n".join(parts)


def as_page(example: Path) -> str:
    """A script as one block; the cells of a notebook as text and blocks."""
    name = example.relative_to(ROOT).as_posix()
    if example.suffix == ".py":
        return f"# {name}\n\n```python\n{example.read_text()}```\n"
    parts = [f"*{name}*"]
    for cell in json.loads(example.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _below(parser: argparse.ArgumentParser, *names: str) -> Iterator[argparse.ArgumentParser]:
    """The parsers of one command and of what is below it, without the one that only lists commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                if not names or name in names:
                    yield below
                    yield from _below(below)


def _targets(page: Path) -> Iterator[Path]:
    """The files of the repository to which a page links."""
    for target in _LINK.findall(page.read_text()):
        found = (page.parent / target).resolve()
        if found.exists() and found.is_relative_to(ROOT):
            yield found


def _source(place: str) -> Path:
    """Where in the repository a page of the site stands."""
    return ROOT / posixpath.relpath(place, BESIDE) if place.startswith(f"{BESIDE}/") else DOCS / place


def _place(target: Path) -> str:
    """Where in the site a file of the repository stands."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    return f"{BESIDE}/{target.relative_to(ROOT).as_posix()}" + ".md" * (target in _EXAMPLES)
