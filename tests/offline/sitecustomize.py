"""For processes of a test with this folder on ``PYTHONPATH``: whoever would leave this machine is told of, and fails.

Python's own sockets are seen, in every process that is started with the same environment; those of libraries in C are
not.
"""

import ipaddress
import os
import socket
import sys

_LOCAL = {"localhost", socket.gethostname(), "", None}
_RECORD = os.environ["MEDFORMER_TEST_CONNECTIONS"]


def _is_local(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in _LOCAL:
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False  # a name, for which somebody would be asked
    if address.is_loopback or address.is_unspecified:
        return True
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        try:
            probe.bind((str(address), 0))  # an address of this machine
        except OSError:
            return False
    return True


def _watch(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sender, address = arguments[:2]
        # Connecting a datagram socket sends nothing; it is how a program asks for the address of its own machine.
        if not isinstance(address, tuple) or (event == "socket.connect" and sender.type == socket.SOCK_DGRAM):
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_local(host):
        with open(_RECORD, "a") as record:
            record.write(f"{event} {host} {' '.join(sys.argv[:3])}\n")
        raise ConnectionRefusedError(f"{event}: {host} is not this machine")


sys.addaudithook(_watch)
