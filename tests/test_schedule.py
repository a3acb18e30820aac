"""Tests beside each other: those of a file on one worker, those that start a Ray one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.schedule import group

ROOT = Path(__file__).parents[1]


def test_files_that_start_a_ray_stay_together_and_others_by_themselves() -> None:
    jobs, waiting = ("tests/cluster/test_jobs.py::test_a", "tests/cluster/test_waiting.py::test_b[x::y]")
    assert group(ROOT, jobs) == group(ROOT, waiting) == "cluster"
    assert group(ROOT, "tests/test_house.py::test_a") == "tests/test_house.py"


def test_a_file_stays_on_one_worker_and_sets_its_fixture_up_once(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import os, pathlib, time, pytest\n"
        "from tests.schedule import pytest_xdist_make_scheduler\n"
        "@pytest.fixture(scope='module')\n"
        "def place(request):\n"
        "    with open(pathlib.Path(__file__).with_name('log'), 'a') as log:\n"
        "        print(request.path.name, os.environ['PYTEST_XDIST_WORKER'], file=log)\n"
    )
    marks = {"a": "cluster", "b": "cluster", "c": "slow", "d": "slow", "e": "slow"}
    for name, mark in marks.items():
        (tmp_path / f"test_{name}.py").write_text(
            f"import time, pytest\n@pytest.mark.{mark}\n@pytest.mark.parametrize('x', range(6))\n"
            "def test(x, place):\n    time.sleep(.02)\n"
        )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    cluster\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
    assert "30 passed" in done.stdout, done.stdout + done.stderr
    found = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    workers = dict(found)
    assert len(found) == len(workers) == len(marks) and set(workers.values()) == {"gw0", "gw1"}
    assert workers["test_a.py"] == workers["test_b.py"]
