"""Addresses without what may be secret in them: for messages, and for records that others read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Between the parts of a chained fsspec URL, such as simplecache::s3://bucket/folder.
CHAIN = "::"
# An address in a sentence, up to the quote or bracket that ends it, in which there may be credentials.
_SECRETIVE = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>()@?#]*[@?#][^\s'\"<>()]*", re.IGNORECASE)


def shown(url: str) -> str:
    """The URL without user, password, query string and fragment: these may hold credentials."""
    return CHAIN.join(_shown_part(part) for part in url.split(CHAIN))


def has_password(url: str) -> bool:
    """Whether a URL names a user, with or without a password."""
    return any(_shown_part(part) != part.split("?", 1)[0].split("#", 1)[0] for part in url.split(CHAIN))


def without_secrets(document: Any) -> Any:
    """A text, or all texts in nested mappings and lists, with every address in it as :func:`shown` gives it.

    Only addresses that have a ``@`` or a query string are touched, so that other texts stay letter for letter.
    """
    if isinstance(document, str):
        return _SECRETIVE.sub(lambda found: shown(found[0]), document)
    if isinstance(document, Mapping):
        return {key: without_secrets(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_secrets(value) for value in document]
    return document


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
