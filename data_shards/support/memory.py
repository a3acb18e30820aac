"""How much memory this process may still take, so that work can be cut to fit before the system ends it."""

from __future__ import annotations

import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # cgroup v1 writes a number near 2**63 for "none"


def available_bytes() -> int:
    """Bytes that can still be taken: of the machine, of its control groups, and of ``ulimit -v``; the least of them."""
    return max(0, min(_of_machine(), _of_groups(), _of_limit()))


def in_words(count: float) -> str:
    """``3.2 GiB`` or ``710 MiB``."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{max(1, round(count / (1 << 20)))} MiB"


def _of_machine() -> int:
    for line in _text(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return _NO_LIMIT


def _of_groups() -> int:
    """What is left in the control group of this process and in all above it."""
    least = _NO_LIMIT
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _CGROUP / "memory" if controllers else _CGROUP
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            if place != root and root not in place.parents:
                break
            most, now = _text(place / limit).strip(), _text(place / used).strip()
            if most.isdecimal() and now.isdecimal() and int(most) < _NO_LIMIT:
                # Pages of files that were read count as used and are given back when asked for.
                least = min(least, int(most) - int(now) + _cached(place))
    return least


def _cached(place: Path) -> int:
    for line in _text(place / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def _of_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return _NO_LIMIT
    return soft - int(_text(Path("/proc/self/statm")).split()[0]) * resource.getpagesize()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
