"""Temporary folders do not outlive their processes, however these end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from data_shards.storage.scratch import scratch_folder
from data_shards.support.files import new_folder

_HOLD = """
import sys, time
from pathlib import Path
from data_shards.storage.scratch import scratch_folder
from data_shards.support.files import new_folder
from medformer.signals import terminated_in_order
with terminated_in_order(), scratch_folder("test-scratch-") as folder, new_folder(Path(sys.argv[1])) as partial:
    (folder / "weights").write_text("x")
    (partial / "result").write_text("x")
    print("ready", flush=True)
    time.sleep(60)
"""

# Ends itself as ``kill -9`` does, at one of the steps by which a folder is made.
_KILLED = """
import os, signal, sys, tempfile
from data_shards.storage import scratch
tempfile.gettempdir()  # opens a file to try the place
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "open":
    os.open = killed
elif sys.argv[1] == "lock":
    scratch.locks.try_lock = killed
else:
    scratch.Path.rename = killed
with scratch.scratch_folder("test-scratch-"):
    pass
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go, and results beside them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def held(place: Path) -> subprocess.Popen[str]:
    """A process that has both folders open."""
    child = subprocess.Popen([sys.executable, "-c", _HOLD, str(place / "out")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def ended(child: subprocess.Popen[str], number: signal.Signals) -> int:
    child.send_signal(number)
    status = child.wait(30)
    assert child.stdout is not None
    child.stdout.close()
    return status


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_that_can_be_answered_leaves_nothing(place: Path, number: signal.Signals, status: int) -> None:
    child = held(place)
    assert len(list(place.iterdir())) == 2
    assert ended(child, number) == status
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_one_and_what_is_in_use_stays(place: Path) -> None:
    alive, killed = held(place), held(place)
    assert ended(killed, signal.SIGKILL) == -signal.SIGKILL
    assert len(list(place.iterdir())) == 4
    with scratch_folder("test-scratch-"), new_folder(place / "out", overwrite=True):
        deadline = time.monotonic() + 10
        while len(list(place.iterdir())) != 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(list(place.iterdir())) == 4  # its own two, and those of the process that lives
    assert ended(alive, signal.SIGTERM) == 143
    assert [path.name for path in place.iterdir()] == ["out"]


@pytest.mark.parametrize("step", ["open", "lock", "rename"])
def test_what_a_process_left_that_was_killed_making_its_folder_goes_when_it_is_old(place: Path, step: str) -> None:
    status = subprocess.run([sys.executable, "-c", _KILLED, step], check=False).returncode
    assert status == -signal.SIGKILL
    [left] = place.iterdir()
    with scratch_folder("other-"):
        assert left.exists()  # its maker could be between two steps
    hour_ago = time.time() - 3600
    os.utime(left, (hour_ago, hour_ago))
    with scratch_folder("other-"):
        assert not left.exists()
    assert list(place.iterdir()) == []


def test_the_folder_is_there_in_the_block_alone(place: Path) -> None:
    with scratch_folder("test-scratch-") as folder:
        assert folder.is_dir() and folder.parent == place and os.access(folder, os.W_OK)
    assert not folder.exists()
