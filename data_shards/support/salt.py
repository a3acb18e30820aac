"""The secret with which subjects are hashed. Without it a hash could be found by trying every identifier."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.support.files import home_folder

_SHORTEST = 16


def read_salt(path: Path | None = None) -> str:
    """The salt in ``path``; a random one is written there, readable by its owner only, when the file is missing.

    The same salt gives the same subject the same hash in every dataset of a site. It must not be published.

    Args:
        path: the file; None for ``salt`` in :func:`~data_shards.support.files.home_folder`.

    Raises:
        DataError: the file cannot be read or written, or holds fewer than 16 characters.
    """
    file = home_folder() / "salt" if path is None else Path(path)
    try:
        with contextlib.suppress(FileExistsError):
            _create(file)
        salt = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise_out_of_files(error)
        problem = getattr(error, "strerror", None) or "not text"
        raise DataError(f"{file}: the salt cannot be read or made: {problem}") from None
    if len(salt) < _SHORTEST:
        raise DataError(f"{file}: a salt of {len(salt)} characters can be guessed; at least {_SHORTEST} are expected")
    return salt


def _create(file: Path) -> None:
    """Write a new salt under another name and link it, so that no reader sees an empty file."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        os.link(draft, file)
    finally:
        draft.unlink()
