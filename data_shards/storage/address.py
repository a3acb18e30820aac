"""Addresses of remote folders: joining file names to them, and showing them without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

# Between the parts of a chained fsspec URL, such as simplecache::s3://bucket/folder.
_CHAIN = "::"
# An address in a sentence, up to the quote or bracket that ends it, in which there may be credentials.
_SECRETIVE = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>()@?#]*[@?#][^\s'\"<>()]*", re.IGNORECASE)


def protocol_of(url: str) -> str:
    """The protocol of a URL (of the first part of a chained one), or nothing when it is a plain path."""
    head = url.split(_CHAIN, 1)[0]
    return head.split("://", 1)[0].lower() if "://" in head else (head if _CHAIN in url else "")


def shown(url: str) -> str:
    """The URL without user, password, query string and fragment: these may hold credentials."""
    return _CHAIN.join(_shown_part(part) for part in url.split(_CHAIN))


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


def joined_http(url: str, name: str) -> str:
    """The address of ``name`` in an HTTP folder; a query string of the folder, such as a signature, is kept."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))
