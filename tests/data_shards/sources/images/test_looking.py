"""Listing by several processes, and listings that are kept for a build that is taken up again."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.images import looking
from data_shards.sources.images.folder import list_files
from data_shards.sources.images.looking import look_at, looks_at
from data_shards.sources.listing import Listing, listing_with
from data_shards.support.sealed import seal, unseal
from tests.data_shards.sources.images.dicom.make import header, save, stack
from tests.data_shards.sources.images.dicom.test_enhanced import enhanced
from tests.data_shards.sources.images.make import SALT, grey_png, images

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of all sorts, as many as are worth several processes and a kept listing."""
    monkeypatch.setattr(looking, "_FEW", 4)
    root = tmp_path / "Doe^Jane"
    stack(root / "a", PatientID="DoeJane", EchoTime=12.5, AcquisitionTime="123456.5")
    save(enhanced([2, 0, 1], (10.0, 20.0)), root / "enhanced.dcm")
    grey_png(root / "b.png", 3)
    (root / "broken.dcm").write_bytes((root / "a" / "0.dcm").read_bytes()[:200])
    (root / "notes.txt").write_text("DoeJane")
    (root / "gone").symlink_to(root / "nothing")
    return root


def paths(root: Path) -> list[Path]:
    return [root / name for name in list_files(root)[0]]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are looked at from here on."""
    seen: list[Path] = []
    monkeypatch.setattr(looking, "look_at", lambda path: (seen.append(path), look_at(path))[1])
    return seen


def test_processes_see_what_one_sees(archive: Path) -> None:
    files = paths(archive)
    expected = [look_at(path) for path in files]
    assert {look.kind for look in expected} == {"dicom", "picture", None} and sum(look.lost for look in expected) == 1
    assert looks_at(files, Listing(2), "own", SALT) == looks_at(files, Listing(), "own", SALT) == expected


def test_a_kept_listing_is_used_and_is_the_same(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, listing = paths(archive), Listing(1, tmp_path / "out")
    first = looks_at(files, listing, "own", SALT)
    seen = counted(monkeypatch)
    assert looks_at(files, listing, "own", SALT) == first
    assert seen == [archive / "gone"]  # what is not there has no time of change


def test_only_files_that_changed_are_looked_at_again(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Listing(1, tmp_path / "out")
    (archive / "gone").unlink()
    looks_at(paths(archive), listing, "own", SALT)
    (archive / "notes.txt").write_bytes(b"")  # another size
    os.utime(archive / "b.png", ns=(1, 1))  # another time
    grey_png(archive / "new.png", 5)
    (archive / "a" / "0.dcm").unlink()
    seen = counted(monkeypatch)
    looks = looks_at(paths(archive), listing, "own", SALT)
    assert {path.name for path in seen} == {"notes.txt", "b.png", "new.png"}
    assert looks == [look_at(path) for path in paths(archive)]


def test_a_listing_of_another_salt_or_damaged_is_made_anew(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, listing = paths(archive), Listing(1, tmp_path / "out")
    looks_at(files, listing, "own", SALT)
    seen = counted(monkeypatch)
    assert len(looks_at(files, listing, "own", "another salt")) == len(files) == len(seen)
    file = listing.file("own")
    assert file is not None
    file.write_bytes(file.read_bytes()[:-1])
    seen.clear()
    looks_at(files, listing, "own", "another salt")
    assert len(seen) == len(files)


def test_nothing_of_a_patient_can_be_read_in_a_kept_listing_and_only_its_owner_can_open_it(
    archive: Path, tmp_path: Path
) -> None:
    listing = Listing(1, tmp_path / "out")
    looks_at(paths(archive), listing, "own", SALT)
    file = listing.file("own")
    assert file is not None and stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    for mark in (b"Doe", b"Jane", b"1.2.3", b"123456", b"picture", b"dicom"):
        assert mark not in content
    opened = unseal(content, SALT)
    assert opened is not None and len(opened) + 64 == len(content)


def test_few_files_are_not_kept(tmp_path: Path) -> None:
    grey_png(tmp_path / "in" / "a.png", 0)
    with listing_with(Listing(2, tmp_path / "out")):
        images(tmp_path / "in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 50])
def test_what_is_sealed_comes_back_with_the_secret_alone(content: bytes) -> None:
    sealed = seal(content, "secret")
    assert unseal(sealed, "secret") == content and seal(content, "secret") != sealed
    assert unseal(sealed, "Secret") is None and unseal(sealed[:-1], "secret") is None and unseal(b"", "secret") is None
    for place in (0, 40, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert unseal(bytes(changed), "secret") is None


def build(root: Path, out: Path, *words: str, workers: int = 2) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "medformer", "shards", "build", "images", f"root={root}", "name=own", "subject=file"),
        *("shares.train=1", "shares.val=0", "shares.test=0", "--out", str(out), "--workers", str(workers), *words),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=250, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


@pytest.mark.slow
def test_a_command_keeps_its_listing_while_the_build_can_go_on_and_deletes_it_at_the_end(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    size = 150
    for number in range(looking._FEW + 20):
        pixels = np.full((size, size), number, np.uint16)
        save(header(pixels, SeriesInstanceUID=f"1.2.{number}", Modality="CR"), root / f"{number:04d}.dcm")
    damaged = root / f"{looking._FEW + 15:04d}.dcm"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-100])
    stopped = build(root, out, "--shard-mb", "1")
    assert stopped.returncode == 2 and "the file was cut off" in stopped.stderr
    assert (out / ".own.listing").exists() == (out / ".own.building").exists() is True
    damaged.write_bytes(whole)
    done = build(root, out, "--shard-mb", "1")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == ["own"]


def test_a_command_that_fails_before_anything_is_built_leaves_no_listing(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for number in range(looking._FEW):
        (root / f"{number}.txt").write_text("x")
    (root / "a.png").write_bytes(b"rubbish")
    failed = build(root, out)
    assert failed.returncode == 2 and not out.exists()
