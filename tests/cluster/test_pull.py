"""A pulled model is there and right, or not there, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import pytest

from cluster.digests import BUNDLE_FILES
from cluster.errors import RegistryError
from cluster.registry import Registry

MakeBundle = Callable[..., Path]
PULL = "import sys; from pathlib import Path; from cluster.registry import Registry; "
PULL += "Registry(sys.argv[1]).pull(sys.argv[2], Path(sys.argv[3]))"


@pytest.fixture
def name() -> str:
    return f"nano-{uuid.uuid4().hex[:8]}"


def stored_file(registry: Registry, reference: str, file: str) -> Path:
    """Where an embedded store keeps a file."""
    return Path(urlparse(registry.resolve(reference).location).path) / file


def test_a_file_damaged_in_the_store_is_named_and_nothing_is_left(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(make_bundle(), name)
    path = stored_file(registry, f"{name}:1", "model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"model\.safetensors is damaged in the registry"):
        registry.pull(f"{name}:1", tmp_path / "out" / "pulled")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_lost_from_the_store_is_named(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(make_bundle(), name)
    stored_file(registry, f"{name}:1", "provenance.json").unlink()
    with pytest.raises(RegistryError, match=r"cannot fetch .*provenance\.json"):
        registry.pull(f"{name}:1", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_killed_pull_shows_nothing_and_the_next_one_keeps_what_was_complete(
    tracking_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(tracking_uri)
    bundle = make_bundle(size=30_000_000)
    registry.publish(bundle, name)
    destination = tmp_path / "out" / "pulled"
    partial = destination.with_name(".pulled.pull.partial")
    process = subprocess.Popen([sys.executable, "-c", PULL, tracking_uri, f"{name}:1", str(destination)])
    # The documents come before the weights: once the weights have begun, the documents are complete.
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in partial.glob("model.safetensors*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not destination.exists()
    assert not _is_complete(partial / "model.safetensors", bundle)
    kept = (partial / "config.json").stat()

    registry.pull(f"{name}:1", destination)
    assert [path.name for path in destination.parent.iterdir()] == ["pulled"]
    assert sorted(path.name for path in destination.iterdir()) == sorted(BUNDLE_FILES)
    assert all((destination / file).read_bytes() == (bundle / file).read_bytes() for file in BUNDLE_FILES)
    after = (destination / "config.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_the_rest_of_another_models_pull_is_not_taken_over(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    bundle = make_bundle()
    registry.publish(bundle, name)
    partial = tmp_path / ".pulled.pull.partial"
    partial.mkdir()
    (partial / "config.json").write_text('{"architecture": "another"}')
    (partial / "stray.pkl").write_bytes(b"")
    (partial / "folder").mkdir()
    pulled = registry.pull(f"{name}:1", tmp_path / "pulled")
    assert sorted(path.name for path in pulled.iterdir()) == sorted(BUNDLE_FILES)
    assert (pulled / "config.json").read_bytes() == (bundle / "config.json").read_bytes()


def test_a_second_pull_into_the_same_folder_is_refused_while_the_first_runs(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(make_bundle(), name)
    partial = tmp_path / ".pulled.pull.partial"
    partial.mkdir()
    script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
    script += "print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(partial)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline().strip() == "held"
        with pytest.raises(RegistryError, match="another pull into .* is running"):
            registry.pull(f"{name}:1", tmp_path / "pulled")
        holder.kill()
    assert registry.pull(f"{name}:1", tmp_path / "pulled").is_dir()


def test_an_existing_folder_is_kept_and_only_accepted_when_it_is_the_model(
    sqlite_uri: str, make_bundle: MakeBundle, name: str, tmp_path: Path
) -> None:
    registry = Registry(sqlite_uri)
    registry.publish(make_bundle(seed=1), name)
    registry.publish(make_bundle(seed=2), name)
    pulled = registry.pull(f"{name}:1", tmp_path / "pulled")
    inode = os.stat(pulled / "model.safetensors").st_ino
    assert registry.pull(f"{name}:1", pulled) == pulled
    assert os.stat(pulled / "model.safetensors").st_ino == inode
    with pytest.raises(RegistryError, match="exists already and is not"):
        registry.pull(f"{name}:2", pulled)
    assert os.stat(pulled / "model.safetensors").st_ino == inode


def _is_complete(path: Path, bundle: Path) -> bool:
    return path.is_file() and path.read_bytes() == (bundle / path.name).read_bytes()
