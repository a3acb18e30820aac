"""On which addresses the processes of a test listen."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import psutil


def listening(pid: int) -> dict[str, set[str]]:
    """Addresses on which a process and all that it has started listen, each with the names of the processes."""
    found: dict[str, set[str]] = {}
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in one.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault(f"{connection.laddr.ip}:{connection.laddr.port}", set()).add(one.name())
    return found


def beyond_loopback(pid: int) -> dict[str, set[str]]:
    """Those of :func:`listening` that other machines reach."""
    return {
        address: names
        for address, names in listening(pid).items()
        if not ip_address(address.rpartition(":")[0]).is_loopback
    }
