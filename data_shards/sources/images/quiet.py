"""Libraries that parse patients' files say nothing: their warnings and log lines quote what the files hold."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

# Loggers below these have no level of their own and take this one.
_LOGGERS = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "PIL")
_NOTHING = logging.CRITICAL + 1

# Warning filters and log levels belong to the process, so one reading at a time may change them.
_LOCK = threading.RLock()
_inside = False


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """No warning and no log line of pydicom or of a decoder while inside; filters and levels are put back.

    Threads that read take turns; reading in parallel is for processes.
    """
    global _inside
    with _LOCK:
        if _inside:  # nothing is left to do, and doing it for each of many files takes longer than reading a header
            yield
            return
        _inside = True
        try:
            with _silence():
                yield
        finally:
            _inside = False


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = {name: logging.getLogger(name).level for name in _LOGGERS}
        try:
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(_NOTHING)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
