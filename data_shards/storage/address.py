"""Addresses of remote folders: their protocol, and joining file names to them."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

from data_shards.support.secrets import CHAIN


def protocol_of(url: str) -> str:
    """The protocol of a URL (of the first part of a chained one), or nothing when it is a plain path."""
    head = url.split(CHAIN, 1)[0]
    return head.split("://", 1)[0].lower() if "://" in head else (head if CHAIN in url else "")


def joined_http(url: str, name: str) -> str:
    """The address of ``name`` in an HTTP folder; a query string of the folder, such as a signature, is kept."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))
