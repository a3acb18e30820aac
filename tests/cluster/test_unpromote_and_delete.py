"""An alias that is taken away and a version that is deleted leave their story behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pytest

from cluster.errors import RegistryError
from cluster.registry import Registry
from medformer.cli import main
from tests.cluster.conftest import TrackingServer

MakeBundle = Callable[..., Path]


@pytest.fixture
def name() -> str:
    return f"nano-{uuid.uuid4().hex[:8]}"


def weights_in(folder: Path) -> list[Path]:
    return list(folder.rglob("model.safetensors"))


def test_an_alias_that_is_taken_away_is_gone_and_its_history_is_not(
    tracking_uri: str, make_bundle: MakeBundle, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, store = Registry(tracking_uri), ["--tracking-uri", tracking_uri]
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)
    registry.promote(name, "1", "champion")
    assert main(["models", "unpromote", f"{name}@champion", *store]) == 0
    assert capsys.readouterr().out == f"{name}@champion is no more, before: version 1\n"
    details = registry.show(name)
    assert details.aliases == {} and details.unrecorded == ()
    assert [(move.previous, move.version) for move in details.history] == [(None, "1"), ("1", None)]
    with pytest.raises(RegistryError, match=f"model '{name}' has no alias 'champion'; it has none"):
        registry.unpromote(name, "champion")
    # Given again, it came from nowhere.
    registry.promote(name, "2", "champion")
    assert [(move.previous, move.version) for move in registry.show(name).history][-1] == (None, "2")
    capsys.readouterr()
    assert main(["models", "show", name, *store]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if " champion " in line]
    assert [row[2:4] for row in rows[-3:]] == [["-", "1"], ["1", "-"], ["-", "2"]]


def test_a_version_with_an_alias_is_not_deleted(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry, store = Registry(sqlite_uri), ["--tracking-uri", sqlite_uri]
    registry.publish(make_bundle(), name)
    registry.promote(name, "1", "champion")
    assert main(["models", "delete", f"{name}:1", *store]) == 2
    assert capsys.readouterr().err == (
        f"medformer: error: {name}:1 is champion; 'medformer models unpromote {name}@champion' first\n"
    )
    assert main(["models", "delete", f"{name}@champion", *store]) == 2
    assert "expected NAME:VERSION" in capsys.readouterr().err
    assert registry.resolve(f"{name}:1").aliases == ("champion",)


@pytest.mark.parametrize("store", ["sqlite", "http"])
def test_a_deleted_version_and_its_files_are_gone_and_its_number_is_not_given_again(
    store: str, make_bundle: MakeBundle, name: str, tmp_path: Path, request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    uri, home = f"sqlite:///{tmp_path / 'store' / 'medformer.db'}", tmp_path / "store" / "artifacts"
    if store == "http":
        server: TrackingServer = request.getfixturevalue("new_tracking_server")
        uri, home = server.uri, server.folder / "artifacts"
    registry = Registry(uri)
    kept, gone = (registry.publish(make_bundle(seed=seed), name) for seed in (1, 2))
    registry.promote(name, "2", "champion")
    registry.promote(name, "1", "champion")
    assert len(weights_in(home)) == 2
    assert main(["models", "delete", f"{name}:2", "--tracking-uri", uri]) == 0
    assert capsys.readouterr().out.startswith(f"deleted {name}:2; ")
    assert len(weights_in(home)) == 1
    details = registry.show(name)
    assert [each.version for each in details.versions] == ["1"]
    assert [move.version for move in details.history] == ["2", "1"]
    assert [(each.version, each.sha256) for each in details.deletions] == [("2", gone.digest)]
    with pytest.raises(RegistryError, match=f"model '{name}' has no version 2; valid: 1"):
        registry.pull(f"{name}:2", tmp_path / "pulled")
    assert registry.publish(make_bundle(seed=2, folder="again"), name).version == "3"
    assert registry.pull(f"{name}:1", tmp_path / "kept").is_dir() and kept.version == "1"


def test_files_that_another_version_has_too_or_that_lie_elsewhere_stay(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(sqlite_uri)
    published = registry.publish(make_bundle(), name)
    files = Path(urlparse(published.location).path)
    elsewhere = tmp_path / "home"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("x")
    tags = registry.store.client.get_model_version(name, "1").tags
    with registry.store.as_default():
        for source in (published.location, elsewhere.as_uri()):
            registry.store.client.create_model_version(name, source=source, tags=tags)
    for number in ("2", "3"):
        assert main(["models", "delete", f"{name}:{number}", "--tracking-uri", sqlite_uri]) == 0
        assert "its files are not removed" in capsys.readouterr().out
    assert (files / "model.safetensors").is_file() and (elsewhere / "thesis.txt").is_file()
    assert registry.pull(f"{name}:1", tmp_path / "pulled").is_dir()


def test_a_version_of_a_newer_medformer_is_told_and_does_not_hide_the_others(
    tracking_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(tracking_uri)
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)
    client = registry.store.client
    client.set_model_version_tag(name, "2", "medformer.schema", "2")
    client.set_model_version_tag(name, "2", "medformer.files", '{"weights.bin": {"blake3": "0"}}')
    with pytest.raises(RegistryError) as refused:
        registry.pull(f"{name}:2", tmp_path / "pulled")
    assert str(refused.value) == (
        f"{name}:2 was published by a newer Medformer than this one, which reads schema 1; update medformer"
    )
    assert registry.pull(f"{name}:1", tmp_path / "pulled").is_dir()
    assert registry.publish(make_bundle(seed=3), name).version == "3"
    assert main(["models", "show", name, "--tracking-uri", tracking_uri]) == 0
    assert "note: a newer Medformer published version 2, which this one cannot read" in capsys.readouterr().out
