"""The house stands as DESIGN.md section 1 draws it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_shards", "pretrain", "finetune", "cluster", "medformer")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "docs", "examples")
LONGEST, NINE_IN_TEN = 600, 300

IMPORT_ALL = """
import importlib, pkgutil
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def find_present(name, path=None, target=None):
    return None if name.partition(".")[0] in {absent!r} else find_spec(name, path, target)

PathFinder.find_spec = find_present
for package in {packages!r}:
    importlib.import_module(package)
    for module in pkgutil.walk_packages([package], package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


def test_packages_import_only_the_floors_below() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contributing_draws_the_rooms_of_data_shards_as_the_contract_does() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["id"] == "rooms-of-data-shards")
    folders = {path.parent.name for path in (ROOT / "data_shards").glob("*/__init__.py")}
    rooms = [[room for room in layer.split(" | ") if room in folders] for layer in layers]
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    drawn = [re.findall("`([a-z]+)`", row) for row in rows]
    assert [row for row in drawn if row and set(row) <= folders] == [room for room in rooms if room]


def test_all_but_the_layer_of_the_cluster_imports_without_ray_mlflow_deepspeed_and_oracles() -> None:
    packages = ("data_shards", "pretrain", "finetune", "medformer")
    absent = {"ray", "mlflow", "deepspeed", "ninja", "lightly", "transformers"}
    done = run_python(IMPORT_ALL.format(absent=absent, packages=packages))
    assert done.returncode == 0, done.stderr
    written = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in python_files(*packages)}
    written = {name.removesuffix(".__init__") for name in written if not name.endswith("__main__")}
    assert written - set(packages) <= set(done.stdout.split())


def test_every_folder_with_code_is_a_package_with_a_docstring() -> None:
    for folder in {path.parent for path in python_files(*PACKAGES)}:
        start = folder / "__init__.py"
        assert start.is_file(), f"{folder} has no __init__.py"
        assert start.read_text().startswith('"""'), f"{start} has no docstring"


def test_files_are_small() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files(*FOLDERS)}
    longest = max(lengths, key=lambda path: lengths[path])
    assert lengths[longest] <= LONGEST, f"{longest} has {lengths[longest]} lines"
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= NINE_IN_TEN


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_in_the_documents_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(_code_of(ROOT / document))))
    assert named
    assert named <= targets


def test_the_readme_names_the_two_commands_and_ci_runs_the_test_command() -> None:
    code = "\n".join(_code_of(ROOT / "README.md"))
    assert "make demo" in code
    assert "make test" in code
    assert {"step make docs", "step make test"} <= set((ROOT / ".ci" / "run").read_text().splitlines())


def test_a_constraint_is_an_exact_public_version_and_every_requirement_has_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in lines)
    pinned = {_canonical(line.partition("==")[0]) for line in lines}
    required = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {_name(requirement) for requirement in required}
    assert names - {"medformer"} <= pinned


def test_what_the_packages_import_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name != "dev"}
    optional = {_name(requirement) for needed in extras.values() for requirement in needed}
    core = {_name(requirement) for requirement in project["dependencies"]}
    brought_by = importlib.metadata.packages_distributions()
    modules = set().union(*map(_imports, python_files(*PACKAGES))) - {*PACKAGES, *sys.stdlib_module_names}
    imported = {module: {_canonical(name) for name in brought_by.get(module, ())} for module in modules}
    assert not [module for module in imported if not imported[module] & (core | optional)]
    assert core <= set().union(*imported.values())


def test_only_the_cluster_extras_bring_ray_mlflow_and_deepspeed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    heavy = ("ray", "mlflow", "deepspeed", "ninja")
    assert not [requirement for requirement in project["dependencies"] if requirement.startswith(heavy)]


def test_make_refuses_an_old_python_in_one_clear_line(tmp_path: Path) -> None:
    old = tmp_path / "oldpython"
    old.write_text('#!/bin/sh\nif [ "$1" = -V ]; then echo "Python 3.9.18"; else exit 1; fi\n')
    old.chmod(0o755)
    venv = tmp_path / "venv"
    command = ["make", "install", f"PYTHON={old}", f"VENV={venv}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.9.18 is too old, 3.11 or newer is needed" in done.stderr
    assert not venv.exists()


def _code_of(path: Path) -> list[str]:
    """The code blocks and code spans of a Markdown document."""
    text = path.read_text()
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", text)]


def _imports(path: Path) -> set[str]:
    """The first words of the absolute imports anywhere in a file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in plain | named}


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return _canonical(match[0])


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
