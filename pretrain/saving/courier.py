"""Keeping the copies of a run up to date, on a thread of rank 0."""

from __future__ import annotations

import sys
import threading
import time

from data_shards.support.errors import CheckpointError, ConfigError
from pretrain.checkpoint import Checkpoint, CheckpointStore
from pretrain.config import CheckpointConfig
from pretrain.saving.mirror import Copy, Mirror
from pretrain.saving.policy import retired

_TRIES = 3
_PAUSE_S = 2.0


class Courier:
    """Sends complete checkpoints, and removes copies that are no longer kept.

    A copy that cannot be sent stops nothing: the checkpoint is complete here. It is told on standard error, and sent
    with the next one.

    Args:
        mirror: where copies lie; None for nowhere, and nothing is done.
        store: the checkpoints here.
        config: which of them are kept.
    """

    def __init__(self, mirror: Mirror | None, store: CheckpointStore, config: CheckpointConfig) -> None:
        self._mirror = mirror
        self._store = store
        self._config = config
        self._due = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def send(self) -> None:
        """Bring the copies up to date, after what is being sent; returns at once."""
        if self._mirror is None:
            return
        with self._lock:
            self._due = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoint-copies", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Bring the copies up to date, and wait until they are, or cannot be."""
        self.send()
        while (thread := self._thread) is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._due:
                    self._thread = None
                    return
                self._due = False
            assert self._mirror is not None
            self._update(self._mirror)

    def _update(self, mirror: Mirror) -> None:
        for attempt in range(_TRIES):
            try:
                self._bring_up_to_date(mirror)
                return
            except CheckpointError as error:
                if attempt < _TRIES - 1:
                    time.sleep(_PAUSE_S * 2**attempt)
                    continue
                print(
                    f"medformer: {error}; it stays in {self._store.folder}, and is sent with the next checkpoint",
                    file=sys.stderr,
                    flush=True,
                )

    def _bring_up_to_date(self, mirror: Mirror) -> None:
        there = {copy.name for copy in mirror.complete()}
        for checkpoint in reversed(self._store.complete()):  # The newest first: a node may be taken away.
            if checkpoint.folder.name not in there:
                _send(mirror, checkpoint)
        for old in retired(mirror.complete(), self._config, lambda copy: copy.state().get("metrics", {})):
            mirror.remove(old.name)


def _send(mirror: Mirror, checkpoint: Checkpoint) -> None:
    try:
        mirror.send(checkpoint)
    except CheckpointError:
        if checkpoint.folder.exists():
            raise
        mirror.remove(checkpoint.folder.name)  # It was retired here in the middle.


def open_courier(config: CheckpointConfig, store: CheckpointStore) -> Courier:
    """The courier of a run; without ``checkpoint.to`` it has nothing to do."""
    return Courier(None if config.to is None else Mirror(config.to), store, config)


def newest_copy(config: CheckpointConfig, store: CheckpointStore) -> Copy | None:
    """The newest copy when it is newer than every checkpoint here; copies that are not complete are told.

    Raises:
        ConfigError: ``checkpoint.to`` cannot be opened.
        CheckpointError: it cannot be listed.
    """
    if config.to is None:
        return None
    mirror = Mirror(config.to)
    copies = mirror.complete()
    for name in mirror.torn():
        print(f"medformer: {mirror.url}/{name} is not complete and is left out", file=sys.stderr, flush=True)
    here = store.latest()
    if not copies or (here is not None and (here.step, here.attempt) >= (copies[-1].step, copies[-1].attempt)):
        return None
    return copies[-1]


def check_copies(config: CheckpointConfig, *, resume: bool) -> None:
    """See that copies can be written, and that they would not stand among those of another run.

    What is there of copies that are not complete is removed.

    Raises:
        ConfigError: it cannot be written, or holds checkpoints and the run does not go on from them.
    """
    if config.to is None:
        return
    mirror = Mirror(config.to)
    if not resume and mirror.complete():
        raise ConfigError(
            f"checkpoint.to: {mirror.url} holds checkpoints; choose another place, or pass --resume to go on"
        )
    mirror.check_writable()
    for name in mirror.torn():
        mirror.remove(name)
