"""A folder of this machine, or of a file system mounted on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.storage.base import Lease, Span, StoredFile, plain_name
from data_shards.storage.spans import read_spans
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError


@dataclass(frozen=True)
class LocalFolder:
    """Files are read where they lie; nothing is copied.

    Only the size of a file is compared with the manifest: reading all of it to check its SHA-256 would cost as much as
    using it, and the reader checks every sample.

    Attributes:
        folder: where the files are.
    """

    folder: Path

    def read_bytes(self, name: str, limit: int) -> bytes:
        """See :meth:`~data_shards.storage.base.Storage.read_bytes`."""
        path = self.folder / plain_name(name)
        try:
            with open(path, "rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except OSError as error:
            raise_out_of_files(error)
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
        if len(content) > limit:
            raise DataError(f"{path}: more than {limit} bytes, expected a small file")
        return content

    def local(self, name: str, *, size: int, sha256: str) -> Lease:
        """See :meth:`~data_shards.storage.base.Storage.local`."""
        path = self.folder / plain_name(name)
        try:
            found = path.stat().st_size
        except OSError:
            raise DataError(f"{path}: missing; the manifest lists it") from None
        if found != size:
            raise DataError(f"{path}: {found} bytes, the manifest says {size}: truncated or damaged")
        return Lease(path)

    def spans(self, name: str, spans: Sequence[Span], *, size: int, sha256: str) -> Iterator[memoryview]:
        """See :meth:`~data_shards.storage.base.Storage.spans`."""
        with self.local(name, size=size, sha256=sha256) as lease:
            yield from read_spans(lease.path, spans, self.describe(name))

    def prefetch(self, files: Iterable[StoredFile]) -> None:
        """Nothing to do: the files are here."""

    def describe(self, name: str = "") -> str:
        """See :meth:`~data_shards.storage.base.Storage.describe`."""
        return str(self.folder / name)
