"""The registry keeps what it was given, says who had which alias, and names what it cannot find."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from cluster.digests import BUNDLE_FILES
from cluster.errors import RegistryError
from cluster.registry import Registry
from data_shards.support.files import home_folder, sha256_of

MakeBundle = Callable[..., Path]


@pytest.fixture
def name() -> str:
    return f"nano-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def registry(tracking_uri: str) -> Registry:
    return Registry(tracking_uri)


def test_a_bundle_comes_back_byte_for_byte(
    registry: Registry, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    bundle = make_bundle()
    published = registry.publish(bundle, name)
    registry.promote(name, published.version, "champion")
    pulled = registry.pull(f"{name}@champion", tmp_path / "pulled")
    assert sorted(path.name for path in pulled.iterdir()) == sorted(BUNDLE_FILES)
    for file in BUNDLE_FILES:
        assert (pulled / file).read_bytes() == (bundle / file).read_bytes()
        assert published.files[file].sha256 == sha256_of(bundle / file)
    assert published.architecture == "medformer_nano"
    assert not list(tmp_path.glob(".*"))


def test_mlflow_itself_resolves_the_alias(
    registry: Registry, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    bundle = make_bundle()
    registry.promote(name, registry.publish(bundle, name).version, "champion")
    with registry.store.as_default():
        folder = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(tmp_path / "mlflow"))
    assert (Path(folder) / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()


def test_the_same_files_are_published_once(registry: Registry, make_bundle: MakeBundle, name: str) -> None:
    first = registry.publish(make_bundle(seed=1), name)
    second = registry.publish(make_bundle(seed=2), name)
    again = registry.publish(make_bundle(seed=1, folder="copy"), name)
    assert (first.version, second.version, again.version) == ("1", "2", "1")


def test_alias_history_says_who_had_the_alias_when(registry: Registry, make_bundle: MakeBundle, name: str) -> None:
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)
    for version in ("1", "2", "1"):
        registry.promote(name, version, "champion")
    details = registry.show(name)
    assert [(move.previous, move.version) for move in details.history] == [(None, "1"), ("1", "2"), ("2", "1")]
    assert [move.time for move in details.history] == sorted(move.time for move in details.history)
    assert details.aliases == {"champion": "1"}
    assert details.unrecorded == ()
    assert [published.version for published in details.versions] == ["2", "1"]
    assert details.versions[1].aliases == ("champion",)


def test_an_alias_moved_by_other_means_is_reported(registry: Registry, make_bundle: MakeBundle, name: str) -> None:
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)
    registry.promote(name, "1", "champion")
    registry.store.client.set_registered_model_alias(name, "champion", "2")
    assert registry.show(name).unrecorded == ("champion",)
    assert registry.promote(name, "1", "champion").move.previous == "2"
    registry.store.client.delete_registered_model_alias(name, "champion")
    assert registry.show(name).unrecorded == ("champion",)
    registry.promote(name, "2", "champion")
    assert registry.show(name).unrecorded == ()


def test_thirty_promotions_keep_thirty_entries(sqlite_uri: str, make_bundle: MakeBundle, name: str) -> None:
    registry = Registry(sqlite_uri)
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)
    for turn in range(30):
        registry.promote(name, str(1 + turn % 2), "champion")
    history = registry.show(name).history
    assert [move.version for move in history] == ["1", "2"] * 15


def test_publishing_leaves_mlflows_own_default_store_alone(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(sqlite_uri)
    before = mlflow.get_tracking_uri()
    registry.publish(make_bundle(seed=1), name)
    assert mlflow.get_tracking_uri() == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    registry.publish(make_bundle(seed=2), name)
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"


def test_the_list_names_the_newest_version_and_the_aliases(
    registry: Registry, make_bundle: MakeBundle, name: str
) -> None:
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)
    registry.promote(name, "1", "champion")
    (summary,) = [summary for summary in registry.list() if summary.name == name]
    assert summary.latest_version == "2"
    assert summary.aliases == {"champion": "1"}


def test_what_is_not_there_is_named_with_the_nearest_that_is(
    registry: Registry, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry.publish(make_bundle(), name)
    registry.promote(name, "1", "champion")
    wrong = [
        (f"{name[:-1]}_@champion", f"did you mean '{name}'"),
        (f"{name}@champoin", "did you mean 'champion'"),
        (f"{name}:7", "no version 7; valid: 1"),
        (name, f"which version\\? {name}@champion \\(version 1\\) or {name}:1"),
        (f"{name}x", f"no model '{name}x' .*did you mean '{name}'"),
        (f"{name}:zero", "expected a whole number"),
        ("Nano@champion", "lower-case"),
    ]
    for reference, message in wrong:
        with pytest.raises(RegistryError, match=message):
            registry.pull(reference, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    with pytest.raises(RegistryError, match="did you mean"):
        registry.show(f"{name}x")
    with pytest.raises(RegistryError, match="no version 9"):
        registry.promote(name, "9", "champion")


@pytest.mark.parametrize("alias", ["latest", "v1", "3", "Champion", "", "a b"])
def test_an_alias_that_mlflow_would_misread_is_refused(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, alias: str
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(make_bundle(), name)
    with pytest.raises(RegistryError, match="alias"):
        registry.promote(name, "1", alias)
    assert registry.show(name).history == ()


def test_a_folder_that_is_no_bundle_is_refused_and_registers_nothing(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    missing = make_bundle(seed=1)
    (missing / "provenance.json").unlink()
    surplus = make_bundle(seed=2)
    (surplus / "weights.pkl").write_bytes(b"pickle")
    cut = make_bundle(seed=3)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    broken = make_bundle(seed=4)
    (broken / "config.json").write_text("{")
    wrong = [
        (tmp_path / "nothing", "no such model bundle"),
        (missing, "provenance.json is missing"),
        (surplus, "weights.pkl: not part of a model bundle"),
        (cut, "not a complete safetensors file"),
        (broken, "config.json: not readable JSON"),
    ]
    for folder, message in wrong:
        with pytest.raises(RegistryError, match=message):
            registry.publish(folder, name)
    with pytest.raises(RegistryError, match="no model"):
        registry.show(name)


PUBLISH = "import sys; from pathlib import Path; from cluster.registry import Registry; "
PUBLISH += "print(Registry(sys.argv[1]).publish(Path(sys.argv[2]), sys.argv[3]).version)"


@pytest.mark.slow
def test_two_publishers_at_once_get_two_versions(
    make_bundle: MakeBundle, name: str, tmp_path: Path, tracking_uri: str
) -> None:
    # The embedded store does not exist yet: both processes also race to make its tables.
    uri = f"sqlite:///{tmp_path / 'new' / 'medformer.db'}" if tracking_uri.startswith("sqlite") else tracking_uri
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, uri, str(make_bundle(seed=seed)), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert sorted(stdout.strip() for stdout, _ in outputs) == ["1", "2"], outputs
    versions = Registry(uri).show(name).versions
    assert len({published.digest for published in versions}) == 2


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(RegistryError, match="tracking server http://127.0.0.1:9 does not answer"):
        Registry("http://127.0.0.1:9")


def test_the_default_store_is_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDFORMER_HOME", str(tmp_path / "home"))
    assert home_folder() == tmp_path / "home"
    assert Registry().store.uri == f"sqlite:///{tmp_path / 'home' / 'medformer.db'}"
    monkeypatch.delenv("MEDFORMER_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert home_folder() == tmp_path / "xdg" / "medformer"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert home_folder() == Path.home() / ".local" / "share" / "medformer"
