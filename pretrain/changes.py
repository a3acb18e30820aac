"""In what a run of today differs from one that it is to go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.support.documents import CONFIG_FILE, read_mapping
from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.secrets import without_secrets

_MOST_NAMED = 8
_ABSENT = object()


def check_keys(state: Mapping[str, Any], needed: Sequence[str], where: str) -> None:
    """See that what a run left says all that is needed to go on from it.

    Args:
        state: what it says.
        needed: the keys.
        where: the file.

    Raises:
        CheckpointError: a key is missing, as it is in what another version has written.
    """
    if missing := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"{where}: key {missing[0]!r} is missing, so another version of Medformer wrote it; go on with that "
            "version, or start anew in another folder"
        )


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """The leaves in which two nested documents differ, as ``outer.inner: VALUE then, VALUE now``."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            yield from differences(before.get(name, _ABSENT), now.get(name, _ABSENT), f"{key}.{name}".lstrip("."))
    elif _is_list(before) and _is_list(now) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{key}.{place}")
    elif before != now:
        yield f"{key}: {_shown(before)} then, {_shown(now)} now"


def changes(
    out: Path, now: Mapping[str, Any], of: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda content: content
) -> str:
    """What to say of the keys in which a document differs from that of the run that began in a folder.

    Args:
        out: the folder, with the resolved document of then.
        now: the resolved document of today.
        of: gives what counts of either.

    Returns:
        A clause in brackets; nothing when the old document cannot be read, or is the same.
    """
    try:
        before = read_mapping(out / CONFIG_FILE)
    except ConfigError:
        return ""
    found = list(differences(of(before), of(dict(now))))
    if not found:
        return ""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f" ({'; '.join(found[:_MOST_NAMED])}{more})"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else str(without_secrets(value))
