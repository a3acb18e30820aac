"""Fetching files before they are asked for."""

from __future__ import annotations

import collections
import contextlib
import os
import threading
from collections.abc import Callable, Iterable

from data_shards.storage.base import StoredFile

# Requests beyond these are dropped, oldest first: who asks for more has moved on.
_WAITING = 16


class ReadAhead:
    """One thread that fetches, for as long as there is something to fetch.

    Args:
        fetch: brings one file near. What it raises is dropped: whoever needs the file meets the error there.
    """

    def __init__(self, fetch: Callable[[StoredFile], None]) -> None:
        self._fetch = fetch
        self._running = False
        self._start_anew()

    def request(self, files: Iterable[StoredFile]) -> None:
        """Fetch ``files`` in their order, after those requested before."""
        if self._process != os.getpid():
            self._start_anew()  # in a forked process the thread is not there, and the lock may be held for ever
        with self._lock:
            for file in files:
                if file not in self._waiting:
                    self._waiting.append(file)
            if self._waiting and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def _start_anew(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._running = False
        self._waiting: collections.deque[StoredFile] = collections.deque(maxlen=_WAITING)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                file = self._waiting.popleft()
            with contextlib.suppress(Exception):
                self._fetch(file)
