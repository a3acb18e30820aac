from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.data_shards.processes import forked


@pytest.fixture
def helpers() -> Iterator[Callable[[], set[int]]]:
    """The living processes that this test has started by the fork server; what is left at its end is killed.

    SIGKILL also ends one that was stopped, which would else hold the output of pytest open for ever.
    """
    before = forked()

    def found() -> set[int]:
        return forked() - before

    yield found
    for pid in found():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
