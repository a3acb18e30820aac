"""What a test leaves behind is found and ended, also when it is stopped or a reader of a fork server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time

from tests import leftovers


def test_stopped_children_and_readers_are_found_and_the_fork_server_is_not() -> None:
    child = subprocess.Popen(["sleep", "100"])
    reader = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(100,), daemon=True)
    reader.start()
    try:
        os.kill(child.pid, signal.SIGSTOP)
        assert reader.pid is not None
        os.kill(reader.pid, signal.SIGSTOP)
        found = leftovers.running()
        assert found[child.pid] == "sleep 100" and reader.pid in found
        assert os.getpid() not in found
    finally:
        child.kill()
        child.wait()
        reader.kill()
        reader.join()
    left = leftovers.running()
    assert child.pid not in left and reader.pid not in left
    server = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert server is not None and server not in left
