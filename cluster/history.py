"""Which version had which alias, and since when.

MLflow only knows who has an alias now. Each move is therefore written down as a tag of its own on the registered
model: nothing is read, changed and written back, so that two who promote at the same time cannot lose an entry, and
no tag grows.
"""

from __future__ import annotations

import datetime
import getpass
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

_PREFIX = "medformer.alias"


@dataclass(frozen=True)
class AliasMove:
    """One promotion.

    Attributes:
        alias: the alias that moved.
        version: the version it was given to.
        previous: the version that had it before, or None.
        time: when, ISO 8601 in UTC.
        user: who moved it, as the operating system knows them.
    """

    alias: str
    version: str
    previous: str | None
    time: str
    user: str


def new_move(alias: str, version: str, previous: str | None) -> AliasMove:
    """A promotion that happens now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    return AliasMove(alias, version, previous, now, _user())


def as_tag(move: AliasMove) -> tuple[str, str]:
    """The key and value of the tag that records a move; keys sort by time."""
    stamp = move.time.replace("+00:00", "Z").replace(":", "-")
    key = f"{_PREFIX}/{stamp}/{uuid.uuid4().hex[:8]}"
    return key, json.dumps(vars(move), sort_keys=True)


def read_moves(tags: Mapping[str, str]) -> tuple[AliasMove, ...]:
    """The moves recorded in the tags of a registered model, oldest first."""
    keys = sorted(key for key in tags if key.startswith(f"{_PREFIX}/"))
    return tuple(AliasMove(**json.loads(tags[key])) for key in keys)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # No entry for this user id, as in many containers.
        return "unknown"
