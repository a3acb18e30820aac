"""Addresses without what may be secret in them: for messages, and for records that others read."""

from __future__ import annotations

from typing import Any

# Between the parts of a chained fsspec URL, such as simplecache::s3://bucket/folder.
CHAIN = "::"


def shown(url: str) -> str:
    """The URL without user, password, query string and fragment: these may hold credentials."""
    return CHAIN.join(_shown_part(part) for part in url.split(CHAIN))


def has_password(url: str) -> bool:
    """Whether a URL names a user, with or without a password."""
    return any(_shown_part(part) != part.split("?", 1)[0].split("#", 1)[0] for part in url.split(CHAIN))


def without_secrets(content: Any) -> Any:
    """A document, nested as it is, with every URL in it as :func:`shown`; all else is kept."""
    if isinstance(content, dict):
        return {key: without_secrets(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_secrets(value) for value in content]
    return shown(content) if isinstance(content, str) and "://" in content else content


def _shown_part(part: str) -> str:
    scheme, separator, rest = part.partition("://")
    if not separator:
        return part.split("?", 1)[0].split("#", 1)[0]
    rest = rest.split("?", 1)[0].split("#", 1)[0]
    host, slash, path = rest.partition("/")
    _, colon, port = host.rpartition(":")
    if "@" not in host and colon and not port.isdecimal():
        # user:password where the password has a slash in it
        return f"{scheme}://{rest.rpartition('@')[2]}"
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
