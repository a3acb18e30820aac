"""timm's own model checks, run on the models of Medformer.

    python -m tests.timm_suite [--sdist FILE] [arguments for pytest]

Fetches the source distribution of the installed timm into a temporary folder and runs its tests there; nothing of it
enters this repository. This file is also the pytest plugin that hands our models to those tests: wherever they ask timm
for its models, all of them or those of some families, they get ours, so that no list of exceptions of theirs applies.
Tests of a fixed list of other models are left out, but for those of :data:`ADOPTED`. What is left out of the rest is
in :data:`EXCLUDED`, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm

import pretrain.backbone  # noqa: F401  (registers the sizes)

ROOT = Path(__file__).resolve().parent.parent
FILES = ("test_models.py", "test_factory.py", "test_hub.py")
GENERIC = ("test_factory.py", "test_hub.py")
"""Not of single models: they must pass with ours registered."""

ADOPTED = (
    "test_prune_intermediate_layers_params_used",
    "test_forward_after_prune_intermediate_layers",
)
"""Checks of a few of timm's models that hold for ours too."""

_DISPATCH = "forward depends on the number of axes of the images, which symbolic tracing cannot know; use torch.export"
_SCRIPT = "TorchScript, which is deprecated, has no dataclasses of tensors and no keyword-only arguments"
EXCLUDED = {
    "test_model_default_cfgs": "for networks whose features are a map; _non_std is for transformers",
    "test_model_forward_torchscript": _SCRIPT,
    "test_model_forward_fx_torchscript": _SCRIPT,
    "test_model_forward_fx": _DISPATCH,
    "test_model_backward_fx": _DISPATCH,
}

OURS = timm.list_models("medformer_*")
_list_models = timm.list_models


def list_models(filter: Any = "", module: Any = "", pretrained: bool = False, **options: Any) -> list[str]:
    """Ours alone; none where one family of timm is asked for by name, or published weights."""
    if pretrained or (isinstance(filter, str) and filter):
        return []
    return _list_models("medformer_*", include_tags=options.get("include_tags", False))


def pytest_configure(config: pytest.Config) -> None:
    """Before the test files are imported: they ask when they are."""
    timm.list_models = list_models


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Our names in place of the fixed list of an adopted check."""
    if metafunc.function.__name__ in ADOPTED:
        for mark in metafunc.definition.iter_markers("parametrize"):
            if mark.args[0] == "model_name":
                mark.args[1][:] = OURS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other models, and skip what is excluded."""
    chosen, others = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        name = str(callspec.params.get("model_name", "")) if callspec else ""
        if item.path.name in GENERIC or name.startswith("medformer_"):
            chosen.append(item)
        else:
            others.append(item)
        if reason := EXCLUDED.get(getattr(item, "originalname", item.name)):
            item.add_marker(pytest.mark.skip(reason=reason))
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


def fetch(folder: Path) -> Path:
    """The source distribution of the installed timm, by pip."""
    version = importlib.metadata.version("timm")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-binary", "timm", "--dest", str(folder), f"timm=={version}"], check=True)
    return next(folder.glob("timm-*.tar.gz"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; the exit status is pytest's."""
    parser = argparse.ArgumentParser(
        description="timm's own model checks on the models of Medformer", allow_abbrev=False
    )
    parser.add_argument("--sdist", type=Path, help="timm-VERSION.tar.gz; the default is to fetch it by pip")
    options, rest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="timm-checks-") as name:
        folder = Path(name)
        with tarfile.open(options.sdist or fetch(folder)) as archive:
            for member in archive.getmembers():
                # Its tests alone: the timm that they test is the installed one, and their package has our tests' name.
                if Path(member.name).name in (*FILES, "conftest.py", "pyproject.toml"):
                    member.name = Path(member.name).name
                    archive.extract(member, folder, filter="data")
        command = [sys.executable, "-m", "pytest", "-p", "tests.timm_suite", "-c", "pyproject.toml"]
        command += ["-p", "no:cacheprovider", "-q", "-rs", *rest, *FILES]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
