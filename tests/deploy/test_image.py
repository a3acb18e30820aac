"""The image: what it copies is there, reaches the build, and is installed in the versions that are tested."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cluster import defaults
from tests.deploy.files import DEPLOY, versions
from tests.documents import ROOT


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its arguments, comments left out and continued lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def copied() -> list[str]:
    return [source for line in of("COPY") for source in shlex.split(line)[:-1]]


def test_every_instruction_is_one_of_docker() -> None:
    known = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "HEALTHCHECK", "CMD"}
    assert {name for name, _ in instructions()} <= known
    first = next(name for name, _ in instructions() if name != "ARG")
    assert first == "FROM" and of("FROM") == ["${BASE}"]


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_exists_and_is_not_kept_from_the_build(source: str) -> None:
    assert (ROOT / source).exists()
    admitted = [line.removeprefix("!").rstrip("/") for line in ignored() if line.startswith("!")]
    assert any(source == name or source.startswith(f"{name}/") for name in admitted)


def ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_package_is_copied_and_nothing_else_reaches_the_build() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert {name for name in tops if any(fnmatch(name, pattern) for pattern in packages)} <= set(copied())
    assert ignored()[0] == "*" and {line.removeprefix("!").rstrip("/") for line in ignored() if line[0] == "!"} == {
        name.partition("/")[0] for name in copied()
    }


def test_it_installs_our_extras_under_the_constraints_and_python_is_one_that_we_support() -> None:
    installs = [line for line in of("RUN") if "pip install" in line]
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    asked = re.findall(r"'\.\[([\w,]+)\]'", " ".join(installs))
    assert len(asked) == 1 and set(asked[0].split(",")) <= extras and "cluster" in asked[0]
    assert "--constraint constraints.txt" in installs[0] and "--no-deps" in installs[1]
    base = re.fullmatch(r"BASE=python:3\.(\d+)-slim-bookworm", of("ARG")[0])
    assert base is not None and int(base[1]) >= 11


def test_nobody_is_root_and_nothing_is_reported() -> None:
    user = of("USER")
    assert user == ["1000"] and "--uid 1000" in of("RUN")[-1]
    assert [name for name, _ in instructions()].index("USER") > max(
        place for place, (name, _) in enumerate(instructions()) if name == "RUN"
    )
    environment = dict(word.split("=") for word in " ".join(of("ENV")).split())
    ours = {**defaults.RAY, **defaults.MLFLOW}
    assert {"RAY_USAGE_STATS_ENABLED", "RAY_USAGE_STATS_REPORT_URL", "MLFLOW_DISABLE_TELEMETRY"} <= set(environment)
    assert all(value == ours[name] for name, value in environment.items() if name in ours)
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert "echo 'provider: {type: local}' > /home/medformer/ray_bootstrap_config.yaml" in of("RUN")[-1]


def test_the_health_of_a_node_is_asked_where_ray_answers() -> None:
    constants = pytest.importorskip("ray._private.ray_constants")
    shell, _, command = json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+)", command)
    assert shell == "sh"
    assert asked is not None and int(asked[1]) == constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    from ray.dashboard import http_server_agent

    source = Path(http_server_agent.__file__).read_text()
    assert f'"{asked[2]}"' in source, "the agent of Ray does not answer this path without a token"


def test_the_images_of_others_are_of_the_versions_that_are_tested() -> None:
    assert f"mlflow:v{versions()['mlflow']}-full" in (DEPLOY / "mlflow-compose.yaml").read_text()
