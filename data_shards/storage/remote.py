"""A remote folder behind any fsspec URL, read through the cache of the node."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from data_shards.storage.address import joined_http, protocol_of
from data_shards.storage.base import Lease, Span, StoredFile, plain_name
from data_shards.storage.cache import Cache
from data_shards.storage.http import http_chunks
from data_shards.storage.ranges import range_chunks
from data_shards.storage.read_ahead import ReadAhead
from data_shards.storage.spans import fetch_spans, read_spans
from data_shards.storage.transfer import Retries, download, read_small
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.support.secrets import shown


class CachedFolder:
    """Files are fetched into the cache when they are asked for, and read from there.

    Args:
        url: the folder, in the notation of fsspec: ``https://host/folder``, ``s3://bucket/folder``. Options, such as
            credentials, come from fsspec's own configuration or from the URL.
        cache: where the copies are kept.
        retries: how patient transfers are.

    Raises:
        DataError: fsspec does not know the protocol, or the package that brings it is missing.
    """

    def __init__(self, url: str, cache: Cache, retries: Retries | None = None) -> None:
        self._url = url
        self._cache = cache
        self._retries = retries or Retries()
        self._ahead = ReadAhead(lambda file: self._lease(file, wait=False).release())
        self._filesystem()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens its own connections."""
        return CachedFolder, (self._url, self._cache, self._retries)

    def read_bytes(self, name: str, limit: int) -> bytes:
        """See :meth:`~data_shards.storage.base.Storage.read_bytes`; the file is not cached."""
        return read_small(
            lambda start, size: self._chunks(name, start, size), limit, self.describe(name), self._retries
        )

    def local(self, name: str, *, size: int, sha256: str) -> Lease:
        """See :meth:`~data_shards.storage.base.Storage.local`."""
        return self._lease(StoredFile(name, size, sha256), wait=True)

    def spans(self, name: str, spans: Sequence[Span], *, size: int, sha256: str) -> Iterator[memoryview]:
        """See :meth:`~data_shards.storage.base.Storage.spans`; what is fetched for them is not cached."""
        file, what = StoredFile(name, size, sha256), self.describe(plain_name(name))
        if (lease := self._cache.held(file)) is not None:
            with lease:
                yield from read_spans(lease.path, spans, what)
            return
        yield from fetch_spans(lambda start, stop: self._chunks(name, start, size, stop), spans, what, self._retries)

    def prefetch(self, files: Iterable[StoredFile]) -> None:
        """See :meth:`~data_shards.storage.base.Storage.prefetch`; a file for which there is no room is left out."""
        self._ahead.request(files)

    def describe(self, name: str = "") -> str:
        """See :meth:`~data_shards.storage.base.Storage.describe`."""
        folder = shown(self._url).rstrip("/")
        return f"{folder}/{name}" if name else folder

    def _lease(self, file: StoredFile, *, wait: bool) -> Lease:
        what = self.describe(plain_name(file.name))

        def fetch(descriptor: int) -> None:
            download(lambda start, size: self._chunks(file.name, start, size), descriptor, file, what, self._retries)

        return self._cache.lease(file, fetch, what, wait=wait)

    def _chunks(self, name: str, start: int, size: int | None, stop: int | None = None) -> Generator[bytes, None, None]:
        filesystem, folder = self._filesystem()
        stall_s = self._retries.stall_s
        if protocol_of(self._url) in ("http", "https"):
            url = joined_http(folder, plain_name(name))
            return http_chunks(filesystem, url, start=start, size=size, stall_s=stall_s, stop=stop)
        path = f"{folder.rstrip('/')}/{plain_name(name)}"
        return range_chunks(filesystem, path, start=start, size=size if stop is None else stop, stall_s=stall_s)

    def _filesystem(self) -> tuple[Any, str]:
        """The fsspec file system, one for each process: fsspec keeps it, and makes a new one after a fork."""
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self._url)
        except ImportError:
            kind = protocol_of(self._url)
            raise DataError(
                f"{self.describe()}: the package that reads {kind}:// is not installed{_package_for(kind)}"
            ) from None
        except Exception as error:  # each file system checks its options in its own way
            raise_out_of_files(error)
            raise DataError(f"{self.describe()}: fsspec cannot open this address ({type(error).__name__})") from None


def _package_for(protocol: str) -> str:
    from fsspec.registry import known_implementations

    hint = known_implementations.get(protocol, {}).get("err")
    return f": {hint}" if hint else ""
