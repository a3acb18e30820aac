"""A fitted classifier in the registry: what is published is all of it, and what is pulled is right or not there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster.digests import decode, digest_model, encode
from cluster.errors import RegistryError
from cluster.registry import Registry
from finetune.classifier.estimator import FewLabelClassifier
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.cluster.test_pull import PULL
from tests.finetune.samples import TINY, blobs, tiny_backbone

MakeBundle = Callable[..., Path]
CASES = blobs(12, seed=1)


@pytest.fixture
def name() -> str:
    return f"sides-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network with a head, and an ensemble of two networks."""
    folder = tmp_path_factory.mktemp("classifiers")
    bundle = save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    options = {
        "one": {"head_options": {"reads": "embedding"}},
        "two": {"strategy": "full", "ensemble": "seeds", "members": 2, "max_steps": 1},
    }
    for called, given in options.items():
        FewLabelClassifier(bundle, **given).fit(CASES.images, CASES.targets).save(folder / called)
    return {called: folder / called for called in options}


@pytest.fixture
def large(make_bundle: MakeBundle) -> Path:
    """A folder laid out as a classifier, of which the network takes a while to copy."""
    folder = make_bundle(size=10, folder="classifier")
    made = make_bundle(size=30_000_000, folder="network")
    for path in folder.iterdir():
        path.unlink()
    made.rename(folder / "backbone")
    (folder / "classifier.json").write_text("{}")
    save_file({"weight": np.zeros(3, np.float32)}, folder / "head.safetensors")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(registry: Registry, reference: str, file: str) -> Path:
    return Path(urlparse(registry.resolve(reference).location).path) / file


@pytest.mark.parametrize("called", ["one", "two"])
def test_a_pulled_classifier_has_the_files_and_the_predictions_of_the_published_one(
    tracking_uri: str, classifiers: dict[str, Path], name: str, called: str, tmp_path: Path
) -> None:
    registry, folder = Registry(tracking_uri), classifiers[called]
    published = registry.publish(folder, name)
    assert published.architecture == "medformer_nano classifier"
    assert registry.publish(folder, name).version == published.version
    pulled = registry.pull(f"{name}:1", tmp_path / "pulled")
    assert files_of(pulled) == files_of(folder)
    networks = {file.split("/")[0] for file in files_of(pulled) if "/" in file}
    assert len(networks) == {"one": 1, "two": 2}[called]
    expected = FewLabelClassifier.load(folder).predict_proba(CASES.images)
    np.testing.assert_array_equal(FewLabelClassifier.load(pulled).predict_proba(CASES.images), expected)


def test_the_command_says_that_it_is_a_classifier(
    sqlite_uri: str, classifiers: dict[str, Path], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--tracking-uri", sqlite_uri]
    assert main(["models", "publish", str(classifiers["one"]), "--name", name, "--alias", "champion", *store]) == 0
    capsys.readouterr()
    assert main(["models", "show", name, *store]) == 0
    shown = capsys.readouterr().out
    assert "medformer_nano classifier" in shown and "backbone/model.safetensors" in shown
    assert main(["models", "pull", f"{name}@champion", "--out", str(tmp_path / "pulled"), *store]) == 0
    assert files_of(tmp_path / "pulled") == files_of(classifiers["one"])


def test_a_killed_pull_goes_on_from_the_nested_files_that_are_complete(
    sqlite_uri: str, large: Path, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(large, name)
    destination = tmp_path / "out" / "pulled"
    partial = destination.with_name(".pulled.pull.partial")
    process = subprocess.Popen([sys.executable, "-c", PULL, sqlite_uri, f"{name}:1", str(destination)])
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in partial.glob("backbone/model.safetensors*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not destination.exists()
    kept = (partial / "backbone" / "config.json").stat()
    registry.pull(f"{name}:1", destination)
    assert [path.name for path in destination.parent.iterdir()] == ["pulled"]
    assert files_of(destination) == files_of(large)
    after = (destination / "backbone" / "config.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_a_nested_file_that_was_cut_off_is_fetched_again(
    sqlite_uri: str, classifiers: dict[str, Path], name: str, tmp_path: Path
) -> None:
    registry, folder = Registry(sqlite_uri), classifiers["one"]
    registry.publish(folder, name)
    partial = tmp_path / ".pulled.pull.partial"
    (partial / "backbone").mkdir(parents=True)
    (partial / "stray" / "deep").mkdir(parents=True)
    (partial / "stray" / "deep" / "weights.pkl").write_bytes(b"x")
    whole = (folder / "backbone" / "model.safetensors").read_bytes()
    (partial / "backbone" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (partial / "backbone" / "stray.pkl").write_bytes(b"x")
    assert files_of(registry.pull(f"{name}:1", tmp_path / "pulled")) == files_of(folder)


@pytest.mark.parametrize("file", ["backbone/model.safetensors", "backbone/config.json", "head.safetensors"])
def test_a_damaged_file_is_named_wherever_it_lies_and_nothing_is_left(
    sqlite_uri: str, classifiers: dict[str, Path], name: str, file: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(classifiers["one"], name)
    path = stored(registry, f"{name}:1", file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=f"{file} is damaged in the registry"):
        registry.pull(f"{name}:1", tmp_path / "out" / "pulled")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_not_a_whole_classifier_is_not_published(
    sqlite_uri: str, classifiers: dict[str, Path], name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)

    def copy(called: str) -> Path:
        folder = tmp_path / called
        for file, content in files_of(classifiers["two"]).items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    lacking, more, cut, around = copy("lacking"), copy("more"), copy("cut"), copy("around/classifier")
    (lacking / "backbone-1" / "config.json").unlink()
    (more / "backbone-1" / "notes.txt").write_text("x")
    (cut / "backbone-1" / "model.safetensors").write_bytes((cut / "backbone-1" / "model.safetensors").read_bytes()[:-9])
    for folder, message in (
        (lacking, r"not a fitted classifier, backbone-1/config\.json is missing"),
        (more, r"backbone-1/notes\.txt: not part of a fitted classifier"),
        (cut, r"backbone-1/model\.safetensors: not a complete safetensors file"),
        (around.parent, "what finetune wrote; the classifier is .*around/classifier"),
    ):
        with pytest.raises(RegistryError, match=message) as caught:
            registry.publish(folder, name)
        assert "\n" not in str(caught.value)
    assert name not in [model.name for model in registry.list()]


def test_digests_of_a_path_that_leaves_the_folder_are_refused(classifiers: dict[str, Path]) -> None:
    digests = digest_model(classifiers["one"])
    assert decode(encode(digests)) == digests
    for away in ("../backbone/config.json", "/backbone/config.json", "backbone/../config.json"):
        moved = {away if file == "backbone/config.json" else file: each for file, each in digests.items()}
        with pytest.raises(ValueError, match="files"):
            decode(encode(moved))
