"""``medformer models`` as a user types it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from medformer.cli import main


@pytest.fixture
def name() -> str:
    return f"nano-{uuid.uuid4().hex[:8]}"


def test_publish_promote_show_and_pull(
    tracking_uri: str, make_bundle: Callable[..., Path], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--tracking-uri", tracking_uri]
    bundle = make_bundle()
    assert main(["models", "publish", str(bundle), "--name", name, "--alias", "candidate", *store]) == 0
    assert main(["models", "promote", f"{name}@candidate", "champion", *store]) == 0
    capsys.readouterr()

    assert main(["models", "list", *store]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(name))
    assert line.split()[1] == "1" and "candidate -> 1, champion -> 1" in line

    assert main(["models", "show", name, *store]) == 0
    shown = capsys.readouterr().out
    assert "medformer_nano" in shown and "model.safetensors" in shown and "alias history" in shown

    out = tmp_path / "pulled"
    assert main(["models", "pull", f"{name}@champion", "--out", str(out), *store]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert (out / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()


def test_a_mistake_is_one_line_and_status_2(
    sqlite_uri: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", f"{name}@champion", "--out", str(tmp_path / "x"), "--tracking-uri", sqlite_uri]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"medformer: error: no model '{name}'") and len(error.splitlines()) == 1


def test_an_empty_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path / 'empty.db'}"
    assert main(["models", "list", "--tracking-uri", uri]) == 0
    assert capsys.readouterr().out.strip() == f"no models yet in {uri}"


def test_a_model_named_without_its_version_is_answered_with_its_aliases(
    sqlite_uri: str, make_bundle: Callable[..., Path], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--tracking-uri", sqlite_uri]
    assert main(["models", "publish", str(make_bundle()), "--name", name, "--alias", "champion", *store]) == 0
    rest = ["--data", "images.npz", "--out", str(tmp_path / "out"), *store]
    ways = f"model '{name}': which version? {name}@champion (version 1) or {name}:1"
    for words in (["finetune", "--model", name, *rest], ["evaluate", name, *rest], ["models", "pull", name, *store]):
        capsys.readouterr()
        assert main(words) == 2
        assert capsys.readouterr().err == f"medformer: error: {ways}\n"
    assert main(["finetune", "--model", name[:-1], *rest]) == 2
    assert f"did you mean '{name}'?" in capsys.readouterr().err


def test_a_misspelt_network_is_told_without_making_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path / 'none.db'}"
    rest = ["--data", "images.npz", "--out", str(tmp_path / "out"), "--tracking-uri", uri]
    assert main(["finetune", "--model", "medformer_nanno", *rest]) == 2
    assert capsys.readouterr().err == (
        "medformer: error: medformer_nanno: neither the folder of a model bundle nor a model of the registry, nor the "
        "name of a network; did you mean 'medformer_nano'?\n"
    )
    assert list(tmp_path.iterdir()) == []
