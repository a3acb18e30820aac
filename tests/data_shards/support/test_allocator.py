"""Memory that is freed and asked for again is the same pages, in a real process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards.support.allocator import is_set_by_user, keep_freed_memory

PROGRAM = """
import ctypes, resource, sys
from data_shards.support.allocator import keep_freed_memory, release_freed_memory

def held_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

def work():
    for mebibytes in (1, 24, 96):  # below and above the largest that glibc can be told not to map
        b"x" * (mebibytes << 20)

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: every page is 4 KiB
done = "keep" in sys.argv and keep_freed_memory()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = held_kib()
release_freed_memory()
print(int(done), faults * resource.getpagesize() >> 20, (held - held_kib()) >> 10)
"""

linux_with_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="of glibc's allocator",
)


def measured(*arguments: str, **environment: str) -> tuple[int, int, int]:
    """Whether it was set, MiB of pages that came anew in five rounds, MiB that were given back when asked for."""
    clean = {name: value for name, value in os.environ.items() if not is_set_by_user({name: value})}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=Path(__file__).parents[3], env=clean | environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    done, faults, returned = map(int, output.split())
    return done, faults, returned


@linux_with_glibc
def test_freed_memory_is_used_again_and_given_back_when_asked_for() -> None:
    done, faults, returned = measured("keep")
    assert done and faults < 2 and returned > 90
    assert measured()[1] > 5 * 90, "by default the large ones are mapped anew each time"


@linux_with_glibc
@pytest.mark.parametrize("variable", [{"MALLOC_TOP_PAD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}])
def test_what_the_user_has_set_stays(variable: dict[str, str]) -> None:
    done, faults, _ = measured("keep", **variable)
    assert not done and faults > 5 * 90
    assert not keep_freed_memory(variable)


def test_other_variables_are_none_of_it() -> None:
    assert not is_set_by_user({"GLIBC_TUNABLES": "glibc.pthread.rseq=0", "MALLOC": "1", "PATH": "/bin"})
