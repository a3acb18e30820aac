"""A disk without room is told as such, with the path, and nothing half-written stays on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import pull
from cluster.digests import BUNDLE_FILES
from cluster.errors import RegistryError
from cluster.registry import Registry
from tests.small_disk import small_disk

MakeBundle = Callable[..., Path]
MIB = 1 << 20


@pytest.fixture
def reference(tracking_uri: str, make_bundle: MakeBundle) -> str:
    """A registered model of 4 MB."""
    name = f"nano-{uuid.uuid4().hex[:8]}"
    return f"{name}:{Registry(tracking_uri).publish(make_bundle(size=1_000_000), name).version}"


def test_a_pull_that_does_not_fit_is_refused_before_it_begins(
    tracking_uri: str, reference: str, tmp_path: Path
) -> None:
    registry = Registry(tracking_uri)
    needed = registry.resolve(reference).size_bytes
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        with pytest.raises(RegistryError) as refused:
            registry.pull(reference, disk / "model")
        assert str(refused.value) == (
            f"cannot pull {reference} into {disk / 'model'}: No space left on device: {needed} bytes are needed, "
            f"{2 * MIB} are free"
        )
        assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_during_a_pull_is_told_and_what_is_complete_stays(
    tracking_uri: str, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tracking_uri)
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        # Others may fill it after we have looked.
        monkeypatch.setattr(pull, "_require_room", lambda *_: None)
        with pytest.raises(RegistryError) as told:
            registry.pull(reference, disk / "model")
        partial = disk / ".model.pull.partial"
        assert str(told.value) == (
            f"cannot pull {reference} into {disk / 'model'}: No space left on device; what has come is kept in "
            f"{partial}, and the next pull goes on from there"
        )
        assert {path.name for path in partial.iterdir()} == set(BUNDLE_FILES) - {"model.safetensors", "provenance.json"}


def test_a_model_that_does_not_fit_into_the_store_is_not_registered_and_leaves_its_room(
    make_bundle: MakeBundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(size=2_000_000)
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        registry = Registry(f"sqlite:///{disk / 'store.db'}")
        capfd.readouterr()
        with pytest.raises(RegistryError) as told:
            registry.publish(bundle, "nano")
        assert str(told.value) == (
            f"cannot publish {bundle} as 'nano' in sqlite:///{disk / 'store.db'}: No space left on device"
        )
        assert capfd.readouterr().err == ""
        assert registry.list() == ()
        assert [path for path in (disk / "artifacts").rglob("*") if path.is_file()] == []
        assert registry.publish(make_bundle(seed=1), "nano").version == "1"
