"""A folder that is made for a run, and taken away again when nothing came of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from data_shards.support.errors import ConfigError


@contextlib.contextmanager
def made_unless_in_vain(out: Path, worth_keeping: Collection[str]) -> Iterator[None]:
    """Make a folder; where it is new and the block fails with nothing in it that is worth keeping, remove it.

    Args:
        out: the folder.
        worth_keeping: names of files and folders for the sake of one of which it stays.

    Raises:
        ConfigError: it cannot be made.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made: {error.strerror or error}") from error
    try:
        yield
    except BaseException:  # Ctrl-C too
        if new and not any((out / name).exists() for name in worth_keeping):
            shutil.rmtree(out, ignore_errors=True)
        raise
