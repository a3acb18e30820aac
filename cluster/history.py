"""Which version had which alias and since when, and which versions were deleted.

MLflow only knows who has an alias now, and has no way to change it only if it is still what one has seen. So each move
is first written down as a tag of its own on the registered model: nothing is read, changed and written back, two who
promote at the same time cannot lose an entry, and no tag grows. The moves have an order that everybody reads in the
same way, and the newest one says where the alias belongs: whoever promotes puts it there until the two agree.
"""

from __future__ import annotations

import datetime
import getpass
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from cluster.errors import ClusterError

_PREFIX = "medformer.alias"
_DELETED = "medformer.deleted"


@dataclass(frozen=True)
class AliasMove:
    """One promotion, or the end of one.

    Attributes:
        alias: the alias that moved.
        version: the version it was given to; None when it was taken away.
        previous: the version that had it before, or None.
        time: when, ISO 8601 in UTC, by the clock of who moved it.
        user: who moved it, as the operating system knows them.
        number: one more than that of any move that was seen when it was made; those with equal numbers were made at
            the same time, and their times decide. A clock that is wrong cannot put a move before one it came after.
        required: what the version was shown not to be worse in, in words; empty where nothing was asked.
    """

    alias: str
    version: str | None
    previous: str | None
    time: str
    user: str
    number: int = 0
    required: str = ""


@dataclass(frozen=True)
class Deletion:
    """A version that is gone.

    Attributes:
        version: its number, which no other version gets.
        sha256: its digest, by which a copy of it can be known.
        time: when, ISO 8601 in UTC.
        user: who deleted it.
    """

    version: str
    sha256: str
    time: str
    user: str


def new_move(
    alias: str, version: str | None, previous: str | None, before: Sequence[AliasMove], required: str = ""
) -> AliasMove:
    """A move that happens now, after those that are known; its arguments are the attributes of :class:`AliasMove`."""
    number = 1 + max((move.number for move in before), default=0)
    return AliasMove(alias, version, previous, _now(), _user(), number, required)


def new_deletion(version: str, sha256: str) -> Deletion:
    """A deletion that happens now."""
    return Deletion(version, sha256, _now(), _user())


def as_tag(entry: AliasMove | Deletion) -> tuple[str, str]:
    """The key and value of the tag that records a move or a deletion."""
    stamp = entry.time.replace("+00:00", "Z").replace(":", "-")
    prefix = _DELETED if isinstance(entry, Deletion) else _PREFIX
    return f"{prefix}/{stamp}/{uuid.uuid4().hex[:8]}", json.dumps(vars(entry), sort_keys=True)


def read_moves(tags: Mapping[str, str]) -> tuple[AliasMove, ...]:
    """The moves recorded in the tags of a registered model, in their order.

    What each came after follows from the order: of two that were made at the same time, the later one did not see the
    other. Only a version that no earlier move gave to the alias stays as it was seen: it got there by other means.

    Raises:
        ClusterError: a tag with the name of a move does not record one; the tag is named.
    """
    recorded = {key: _recorded(key, text) for key, text in tags.items() if key.startswith(f"{_PREFIX}/")}
    moves: list[AliasMove] = []
    given: dict[str, list[str | None]] = {}
    for key in sorted(recorded, key=lambda key: (recorded[key].number, key)):
        move = recorded[key]
        before = given.setdefault(move.alias, [])
        if before and (move.previous is None or move.previous in before):
            move = replace(move, previous=before[-1])
        moves.append(move)
        before.append(move.version)
    return tuple(moves)


def read_deletions(tags: Mapping[str, str]) -> tuple[Deletion, ...]:
    """The deletions recorded in the tags of a registered model, oldest first.

    Raises:
        ClusterError: a tag with the name of a deletion does not record one; the tag is named.
    """
    found = []
    for key in sorted(key for key in tags if key.startswith(f"{_DELETED}/")):
        try:
            content = json.loads(tags[key])
            found.append(Deletion(**{field.name: str(content[field.name]) for field in fields(Deletion)}))
        except (ValueError, TypeError, KeyError):
            raise ClusterError(
                f"the tag {key!r} of the registered model does not record a deletion; delete it"
            ) from None
    return tuple(found)


def _recorded(key: str, text: str) -> AliasMove:
    """A move out of its tag; what a later version writes beside what is known here is passed over."""
    try:
        content = json.loads(text)
        known = {field.name: content[field.name] for field in fields(AliasMove) if field.name in content}
        move = AliasMove(**known)
        versions = (move.version, move.previous)
        words = all(isinstance(each, str) for each in (move.alias, move.time, move.user, move.required))
        if not words or not isinstance(move.number, int) or not all(isinstance(each, str | None) for each in versions):
            raise TypeError
    except (ValueError, TypeError):
        raise ClusterError(f"the tag {key!r} of the registered model does not record a promotion; delete it") from None
    return move


def newest(moves: Sequence[AliasMove], alias: str) -> AliasMove | None:
    """The last move of an alias."""
    return next((move for move in reversed(moves) if move.alias == alias), None)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # No entry for this user id, as in many containers.
        return "unknown"
