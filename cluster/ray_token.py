"""The token by which a Ray of ours knows its own processes.

Every process of Ray listens on all addresses of the machine, and whoever reaches one with the right token runs
programs as its user. ``ray.init`` keeps it in ``~/.ray/auth_token``, which it makes readable by all users of a machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cluster.errors import ClusterError

_ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def keep_private() -> None:
    """Make the token file, or take it from all others than its owner, before Ray looks for it.

    Nothing is done where the environment has the token, or says that there is none.

    Raises:
        ClusterError: the home folder does not take it.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or any(map(os.environ.get, _ELSEWHERE)):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        with contextlib.suppress(FileExistsError):
            _create(path)
        status = path.stat()
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise ClusterError(
            f"{path}: the token of Ray cannot be kept there: {error.strerror or error}; RAY_AUTH_TOKEN gives one"
        ) from error


def _create(path: Path) -> None:
    """Write a new token under another name and link it, so that no reader sees an empty file."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.link(draft, path)
    finally:
        draft.unlink()
