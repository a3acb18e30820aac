"""From an address to a storage."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from data_shards.storage.address import protocol_of
from data_shards.storage.base import Storage
from data_shards.storage.cache import Cache
from data_shards.storage.local import LocalFolder
from data_shards.storage.remote import CachedFolder
from data_shards.storage.transfer import Retries
from data_shards.support.errors import DataError
from data_shards.support.secrets import shown


def open_storage(where: str | Path, *, cache: Cache | None, retries: Retries | None = None) -> Storage:
    """The storage at an address.

    Args:
        where: a folder of this machine, as a path or ``file://`` URL, or any other URL that fsspec knows.
        cache: where copies of remote files are kept; may be None for a folder of this machine.
        retries: how patient transfers are; None takes the defaults.

    Raises:
        DataError: the URL is one of an unknown kind, or needs a cache and there is none.
    """
    protocol = "" if isinstance(where, Path) else protocol_of(where)
    if not protocol:
        return LocalFolder(Path(where))
    url = str(where)
    if protocol in ("file", "local"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise DataError(f"{shown(url)}: a file:// URL names a folder of this machine, as in file:///data/shards")
        return LocalFolder(Path(unquote(parts.path)))
    if cache is None:
        raise DataError(f"{shown(url)}: remote shards are read through a cache on this node; none was given")
    return CachedFolder(url, cache, retries)
