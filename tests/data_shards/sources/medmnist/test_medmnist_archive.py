"""Archives are unpacked within bounds of memory and disk, cleaned up after, and downloaded from real servers."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from medmnist import INFO

from data_shards.sources.medmnist.sets import published
from data_shards.sources.medmnist.source import MedMNIST
from data_shards.support.errors import DataError
from tests.data_shards.sources.medmnist.test_medmnist import breast_arrays
from tests.data_shards.storage import server as behaviour
from tests.data_shards.storage.server import Server

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this test, and a home without archives."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it was chosen from TMPDIR before
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDMNIST_ROOT", raising=False)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "breastmnist.npz"
    np.savez_compressed(path, **breast_arrays())
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as server:
        yield server


def source_of(archive: Path) -> MedMNIST:
    return MedMNIST("breastmnist", file=archive, unofficial="noise")


def in_child(work: Callable[[], None]) -> tuple[int, str]:
    """Exit status (negative: the signal) of a forked process that does ``work``, and its DataError."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except DataError as error:
            os.write(writer, str(error).encode())
            status = 2
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader) as message:
        text = message.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def write_zeros(path: Path, name: str, size: int) -> int:
    """An archive of a set made of zeros, never held in memory; returns the bytes of its largest array."""
    archive = published(name, size)
    largest = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for split, count in archive.samples.items():
            for kind, shape in (("images", (count, *archive.image_shape)), ("labels", (count, archive.label_width))):
                with zipped.open(f"{split}_{kind}.npy", "w", force_zip64=True) as file:
                    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, described)
                    total = int(np.prod(shape))
                    largest = max(largest, total)
                    for start in range(0, total, 1 << 22):
                        file.write(bytes(min(1 << 22, total - start)))
    return largest


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    largest = write_zeros(tmp_path / "zeros.npz", "retinamnist", 224)
    script = (
        "import pathlib, resource\n"
        "from data_shards.sources.medmnist.source import MedMNIST\n"
        "import medmnist\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "before = peak()\n"
        f"source = MedMNIST('retinamnist', size=224, file=pathlib.Path({str(tmp_path / 'zeros.npz')!r}), "
        "unofficial='zeros')\n"
        "assert all(not source.sample(position).image.pixels.any() for position in range(0, len(source), 16))\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert largest > 160_000_000 and int(done.stdout) < 30_000_000


def test_nothing_is_unpacked_before_a_sample_is_asked_for_and_all_goes_with_the_source(
    archive: Path, scratch: Path
) -> None:
    source = source_of(archive)
    assert list(scratch.iterdir()) == []
    source.sample(0)
    (folder,) = scratch.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) == 780 * 28 * 28
    del source
    assert list(scratch.iterdir()) == []


def test_copies_in_other_processes_read_the_files_of_the_first(archive: Path, scratch: Path) -> None:
    source = source_of(archive)
    copies = [pickle.loads(pickle.dumps(source)) for _ in range(2)]
    assert len(list(scratch.iterdir())) == 1
    for position in (0, 545, 546, 779):
        expected = source.sample(position).image.pixels
        assert all((copy.sample(position).image.pixels == expected).all() for copy in copies)
    del copies[0]
    assert len(list(scratch.iterdir())) == 1
    del source
    with pytest.raises(DataError, match="breastmnist: the temporary folder of the unpacked images is gone"):
        copies[0].sample(0)


def test_a_forked_child_removes_nothing(archive: Path, scratch: Path) -> None:
    source: list[MedMNIST] = [source_of(archive)]
    source[0].sample(0)

    def work() -> None:
        source[0].sample(1)
        source.clear()
        gc.collect()

    assert in_child(work) == (0, "")
    source[0].sample(779)
    assert len(list(scratch.iterdir())) == 1


def test_what_a_killed_process_left_is_removed_by_the_next(archive: Path, scratch: Path) -> None:
    alive = source_of(archive)
    alive.sample(0)

    def work() -> None:
        killed = source_of(archive)
        killed.sample(0)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work)[0] == -signal.SIGKILL and len(list(scratch.iterdir())) == 2
    (scratch / "medformer-medmnist-of-somebody").mkdir()  # without a lock file: not ours to judge
    source = source_of(archive)
    source.sample(0)
    alive.sample(0)
    assert len(list(scratch.iterdir())) == 3  # the two in use, and the foreign one


def test_a_disk_that_refuses_to_grow_is_one_error_and_leaves_nothing(archive: Path, scratch: Path) -> None:
    source = source_of(archive)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        source.sample(0)

    status, message = in_child(work)
    assert status == 2 and "train: cannot be written: File too large" in message
    assert list(scratch.iterdir()) == []


def rewritten(archive: Path, name: str, content: bytes) -> Path:
    """A copy of the archive in which one member has other content."""
    path = archive.with_name("rewritten.npz")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))
    return path


def test_an_array_that_claims_or_holds_more_than_info_says_is_refused_unread(archive: Path, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        member = zipped.read("train_images.npy")
    bomb = rewritten(archive, "train_images.npy", member + bytes(100_000_000))
    assert bomb.stat().st_size < 2_000_000
    with pytest.raises(DataError, match=r"'train_images' unpacks to 100428064 bytes, expected 428064"):
        source_of(bomb)
    huge = member.replace(b"(546, 28, 28), }     ", b"(99999999, 28, 28), }")
    assert len(huge) == len(member) and huge != member
    with pytest.raises(DataError, match=r"'train_images' is uint8 of shape \(99999999, 28, 28\), expected"):
        source_of(rewritten(archive, "train_images.npy", huge))
    long_header = b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + bytes(1000)
    with pytest.raises(DataError, match="not a readable npz archive .*npy format 2.0"):
        source_of(rewritten(archive, "train_labels.npy", long_header))
    assert list(scratch.iterdir()) == []


def test_a_member_that_unpacks_to_more_than_its_directory_says_is_an_error(archive: Path, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        member = zipped.read("train_images.npy")
    bomb = rewritten(archive, "train_images.npy", member + bytes(50_000_000))
    content = bomb.read_bytes()
    wrong, right = (len(member) + 50_000_000).to_bytes(4, "little"), len(member).to_bytes(4, "little")
    bomb.write_bytes(content.replace(wrong, right))
    source = source_of(bomb)
    with pytest.raises(DataError, match="not a readable npz archive .*CRC"):
        source.sample(0)
    assert list(scratch.iterdir()) == []


def test_a_download_is_verified_and_moved_into_place(
    server: Server, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive.read_bytes()
    server.files["/files/breastmnist.npz"] = content
    server.always["/record"] = behaviour.redirects("/files/breastmnist.npz")
    server.files["/record"] = b""
    entry = {"url": f"{server.url}/record?download=1", "MD5": hashlib.md5(content).hexdigest()}
    monkeypatch.setitem(INFO, "breastmnist", INFO["breastmnist"] | entry)
    source = MedMNIST("breastmnist", root=tmp_path / "new" / "root")
    assert source.card.official and source.card.source_checksum == {"md5": entry["MD5"]}
    assert [path.name for path in (tmp_path / "new" / "root").iterdir()] == ["breastmnist.npz"]
    assert (source.sample(0).image.pixels == breast_arrays()["train_images"][:1]).all()
    requests = len(server.requests)
    MedMNIST("breastmnist", root=tmp_path / "new" / "root")
    assert len(server.requests) == requests


def test_another_size_is_downloaded_from_its_own_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zeros(tmp_path / "zeros.npz", "breastmnist", 64)
    content = (tmp_path / "zeros.npz").read_bytes()
    server.files["/breastmnist_64.npz"] = content
    entry = {"url_64": f"{server.url}/breastmnist_64.npz", "MD5_64": hashlib.md5(content).hexdigest()}
    monkeypatch.setitem(INFO, "breastmnist", INFO["breastmnist"] | entry)
    source = MedMNIST("breastmnist", size=64, root=tmp_path / "root")
    assert source.sample(779).image.pixels.shape == (1, 64, 64)


@pytest.mark.parametrize(
    "fault", [behaviour.status(404), behaviour.drops_after(1000), behaviour.corrupts(5000), behaviour.resets_at_once]
)
def test_a_download_that_fails_leaves_nothing(
    server: Server, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: behaviour.Behaviour
) -> None:
    content = archive.read_bytes()
    server.files["/breastmnist.npz"] = content
    server.always["/breastmnist.npz"] = fault
    entry = {"url": f"{server.url}/breastmnist.npz", "MD5": hashlib.md5(content).hexdigest()}
    monkeypatch.setitem(INFO, "breastmnist", INFO["breastmnist"] | entry)
    with pytest.raises(DataError, match="no breastmnist.npz in .*could not be downloaded from http://127.0.0.1"):
        MedMNIST("breastmnist", root=tmp_path / "new" / "root")
    assert not (tmp_path / "new").exists()


def test_the_published_archive_downloads_with_the_checksum_of_the_package(
    server: Server, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/breastmnist.npz"] = (shared_data / "medmnist" / "breastmnist.npz").read_bytes()
    monkeypatch.setitem(INFO, "breastmnist", INFO["breastmnist"] | {"url": f"{server.url}/breastmnist.npz"})
    source = MedMNIST("breastmnist", root=tmp_path / "root")
    assert source.card.official and source.card.source_checksum == {"md5": "750601b1f35ba3300ea97c75c52ff8f6"}
    assert os.listdir(tmp_path / "root") == ["breastmnist.npz"]
