"""Memory that glibc's allocator keeps: a step takes the pages of the step before instead of asking for new ones.

A step on volumes allocates and frees arrays of many megabytes. By default glibc maps each of them anew and gives it
back at once: the kernel clears every page again, which takes a good part of the time of a step on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_NEVER = -1
_TOP_PAD_BYTES = 64 << 20
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Have the allocator of this process keep what is freed, for what is allocated next.

    Nothing is done where the C library is another one than glibc, or where the user has set how glibc's allocator
    works (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_TOP_PAD_``, ``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_MMAP_MAX_``, or
    ``glibc.malloc`` in ``GLIBC_TUNABLES``). The process then holds the most that it has needed, until it ends or
    :func:`release_freed_memory` is called.

    Args:
        environment: variables of the process.

    Returns:
        Whether it was done.
    """
    glibc = _glibc()
    if glibc is None or is_set_by_user(environment):
        return False
    # Arrays come from the heap, not from mappings of their own; its end is not given back, and grows in large steps.
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(glibc.mallopt(parameter, value) == 1 for parameter, value in settings)


def release_freed_memory() -> None:
    """Give what is kept back to the system; nothing where the C library is another one than glibc."""
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """In the block as :func:`keep_freed_memory`; then what is kept goes back to the system. A decorator, too."""
    keep_freed_memory()
    try:
        yield
    finally:
        release_freed_memory()


def is_set_by_user(environment: Mapping[str, str]) -> bool:
    """Whether the environment says how glibc's allocator is to work."""
    return any(name in environment for name in _VARIABLES) or "glibc.malloc" in environment.get("GLIBC_TUNABLES", "")


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
