"""Installed distributions add to the registries by entry points, and one that is broken is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from data_shards.support.errors import DataError
from data_shards.support.plugins import load_plugins

GROUP = "medformer.test"


def install(folder: Path, name: str, code: str, group: str = GROUP) -> None:
    """A distribution as pip leaves it: a module, and a ``.dist-info`` that names it."""
    (folder / f"{name}_module.py").write_text(code)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}_module\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    load_plugins.cache_clear()
    return tmp_path


def test_every_plugin_of_the_group_is_imported_and_no_other(site: Path) -> None:
    for name in ("zeta", "alpha"):
        install(site, name, f"import pathlib\n(pathlib.Path(__file__).parent / 'saw-{name}').touch()\n")
    install(site, "other", "raise RuntimeError('not asked for')\n", group="medformer.other")
    assert load_plugins(GROUP) == ("alpha", "zeta")
    assert sorted(path.name for path in site.glob("saw-*")) == ["saw-alpha", "saw-zeta"]
    assert load_plugins("medformer.nobody") == ()


def test_a_broken_plugin_is_named_with_its_distribution_and_the_reason(site: Path) -> None:
    install(site, "crooked", "import a_module_that_is_nowhere\n")
    told = (
        r"crooked offers 'crooked' \(crooked_module\) to medformer\.test, and it cannot be loaded: "
        r"ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"
    )
    with pytest.raises(DataError, match=told):
        load_plugins(GROUP)
