"""A real HTTP server on this machine whose answers can be told to go wrong, one request after the other."""

from __future__ import annotations

import collections
import contextlib
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """One GET as the server saw it."""

    path: str
    start: int
    stop: int | None = None
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)


Behaviour = Callable[["_Handler", bytes, Request], None]


class Server:
    """Files by path, and what goes wrong with the next requests for each."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.script: dict[str, collections.deque[Behaviour]] = collections.defaultdict(collections.deque)
        self.always: dict[str, Behaviour] = {}
        self.requests: list[Request] = []
        self.released = threading.Event()
        owner = self

        class Handler(_Handler):
            server_state = owner

        self._http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def next(self, path: str, *behaviours: Behaviour) -> None:
        self.script[path].extend(behaviours)

    def sent(self, path: str) -> int:
        return sum(request.sent for request in self.requests if request.path == path)

    def starts(self, path: str) -> list[int]:
        return [request.start for request in self.requests if request.path == path]

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that were cut on purpose are no news."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def do_GET(self) -> None:
        state = self.server_state
        path = self.path.split("?", 1)[0]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(match[1]), int(match[2]) + 1 if match[2] else None) if match else (0, None)
        request = Request(path, start, stop, headers=dict(self.headers))
        state.requests.append(request)
        content = state.files.get(path)
        if content is None and path not in state.script:
            self.send_error(404)
            return
        behave = state.script[path].popleft() if state.script[path] else state.always.get(path, well)
        with contextlib.suppress(ConnectionError):  # the client may go away
            behave(self, content or b"", request)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def head(
        self, content: bytes, request: Request, *, partial: bool | None = None, length: int | None = None
    ) -> bytes:
        """Send the head of the answer to ``request``; returns the body that belongs to it."""
        partial = "Range" in request.headers if partial is None else partial
        if partial and request.start >= len(content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""
        stop = len(content) if request.stop is None else min(request.stop, len(content))
        body = content[request.start : stop] if partial else content
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {request.start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        return body

    def body(self, body: bytes, request: Request) -> None:
        for start in range(0, len(body), 65536):
            piece = body[start : start + 65536]
            self.wfile.write(piece)
            request.sent += len(piece)

    def finish_early(self) -> None:
        """Close the connection although the body is not complete."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.close_connection = True

    def cut(self) -> None:
        """Reset the connection."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def well(handler: _Handler, content: bytes, request: Request) -> None:
    handler.body(handler.head(content, request), request)


def drops_after(count: int) -> Behaviour:
    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        handler.body(handler.head(content, request)[:count], request)
        handler.finish_early()

    return behave


def resets_at_once(handler: _Handler, content: bytes, request: Request) -> None:
    handler.cut()


def stalls_after(count: int) -> Behaviour:
    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        handler.body(handler.head(content, request)[:count], request)
        handler.server_state.released.wait(60)
        handler.close_connection = True

    return behave


def never_answers(handler: _Handler, content: bytes, request: Request) -> None:
    handler.server_state.released.wait(60)
    handler.close_connection = True


def slowly(pieces: int, seconds: float) -> Behaviour:
    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        body = handler.head(content, request)
        step = -(-len(body) // pieces)
        for start in range(0, len(body), step):
            handler.body(body[start : start + step], request)
            handler.server_state.released.wait(seconds)

    return behave


def status(code: int) -> Behaviour:
    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        handler.send_error(code)

    return behave


def ignores_range(handler: _Handler, content: bytes, request: Request) -> None:
    handler.body(handler.head(content, request, partial=False), request)


def ignores_range_and_drops_after(count: int) -> Behaviour:
    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        handler.body(handler.head(content, request, partial=False)[:count], request)
        handler.cut()

    return behave


def says_length(length: int) -> Behaviour:
    """Claims another Content-Length than the body has."""

    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        body = handler.head(content, request, length=length)
        handler.body(body[:length], request)
        handler.finish_early()

    return behave


def sends(other: bytes) -> Behaviour:
    """Sends other content as if it were the file."""

    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        well(handler, other, request)

    return behave


def corrupts(position: int) -> Behaviour:
    """Flips a bit of the file."""

    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        wrong = bytearray(content)
        wrong[position] ^= 1
        well(handler, bytes(wrong), request)

    return behave


def another_range(handler: _Handler, content: bytes, request: Request) -> None:
    """Answers 206 with the bytes from the beginning."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.body(content, request)


def without_length(handler: _Handler, content: bytes, request: Request) -> None:
    """The old way: the end of the connection is the end of the file."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.body(content, request)
    handler.close_connection = True


def endless(handler: _Handler, content: bytes, request: Request) -> None:
    """A body without a length that goes on until the client has had enough."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while not handler.server_state.released.is_set():
        handler.body(content, request)


def redirects(to: str) -> Behaviour:
    def behave(handler: _Handler, content: bytes, request: Request) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave
