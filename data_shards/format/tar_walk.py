"""The members of a tar that somebody else wrote, with everything refused that a shard has no use for."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError

_BLOCK = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
# A name or a set of pax records that is longer is no honest one.
_EXTENSION_BYTES = 1 << 20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_REFUSED = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.GNUTYPE_LONGLINK: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class WalkedMember:
    """A regular file in the tar.

    Attributes:
        entry: which entry of the tar it is, from 1, as ``tar --list`` counts.
        name: ASCII, relative, without ``..``.
        offset: where its content begins.
        content: its content; empty when it was not wanted.
    """

    entry: int
    name: str
    offset: int
    content: bytes


class TarWalk:
    """Goes through a tar once, from its first byte to its last.

    Plain ustar, GNU long names and pax names and sizes are understood (POSIX.1-2001). Messages count entries instead of
    quoting their names, which may name persons.

    Args:
        path: the tar.
        wanted: the most bytes of a member of this name that are kept; 0 skips it.
    """

    def __init__(self, path: Path, wanted: Callable[[str], int]) -> None:
        self.path = path
        self.bytes = 0
        self._wanted = wanted
        self._digest = hashlib.sha256()
        self._entry = 0

    @property
    def sha256(self) -> str:
        """Of all bytes, when the walk is over."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[WalkedMember]:
        """The regular files.

        Raises:
            DataError: the tar is compressed, damaged or cut off, or has an entry that is refused.
        """
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                yield from self._members(file, size)
        except OSError as error:
            raise_out_of_files(error)
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def _members(self, file: BinaryIO, size: int) -> Iterator[WalkedMember]:
        extended: dict[str, str] = {}
        while True:
            block = self._read(file, _BLOCK)
            if self.bytes == len(block):
                self._refuse_compressed(block)
            if len(block) < _BLOCK:
                raise DataError(f"{self.path}: cut off after entry {self._entry}: no end-of-archive mark")
            if not any(block):
                return self._finish(file)
            self._entry += 1
            header = self._header(block)
            if header.type in _REFUSED:
                raise self._refused(f"{_REFUSED[header.type]}; a shard holds regular files")
            length = int(extended.get("size", header.size)) if header.type in _REGULAR else header.size
            if length > size - self.bytes:
                raise self._refused(f"{length} bytes, more than the rest of the file")
            if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
                extended |= self._extension(header, self._padded(file, length, _EXTENSION_BYTES))
                self._entry -= 1  # tar does not list it
                continue
            name = self._safe(extended.get("path", header.name))
            extended = {}
            offset = self.bytes
            if header.type in _REGULAR:
                keep = self._wanted(name)
                content = self._padded(file, length, keep) if keep else self._skipped(file, length)
                yield WalkedMember(self._entry, name, offset, content)
            elif header.type == tarfile.DIRTYPE:
                self._skipped(file, length)
            else:
                raise self._refused(f"an entry of type {header.type!r}; a shard holds regular files")

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except UnicodeDecodeError:
            raise self._refused("its name is not ASCII") from None
        except (tarfile.HeaderError, ValueError) as error:
            raise self._refused(f"not a tar header ({type(error).__name__})") from None
        if header.size < 0:
            raise self._refused(f"a size of {header.size} bytes")
        return header

    def _extension(self, header: tarfile.TarInfo, content: bytes) -> dict[str, str]:
        """What a GNU or pax header says of the entry behind it: name and size."""
        try:
            if header.type == tarfile.GNUTYPE_LONGNAME:
                return {"path": content.rstrip(b"\0").decode("utf-8")}
            records = dict(_pax_records(content))
        except ValueError:
            raise self._refused("its extended header cannot be read") from None
        if any(key.startswith("GNU.sparse") for key in records):
            raise self._refused("a sparse file; a shard holds regular files")
        chosen = {key: value for key, value in records.items() if key in ("path", "size")}
        if chosen and header.type == tarfile.XGLTYPE:
            raise self._refused("a global header that gives one name or size to all entries")
        if not chosen.get("size", "0").isdecimal():
            raise self._refused("its extended header cannot be read")
        return chosen

    def _safe(self, name: str) -> str:
        if not name.isascii() or not name.isprintable():
            raise self._refused("its name is not printable ASCII")
        if name.startswith("/") or ".." in name.split("/"):
            raise self._refused("its name is absolute or has '..' in it")
        return name.removeprefix("./")

    def _padded(self, file: BinaryIO, length: int, limit: int) -> bytes:
        if length > limit:
            raise self._refused(f"{length} bytes, at most {limit} are accepted there")
        content = self._read(file, length)
        self._read(file, -length % _BLOCK)
        return content

    def _skipped(self, file: BinaryIO, length: int) -> bytes:
        left = length + -length % _BLOCK
        while left and (chunk := self._read(file, min(left, _CHUNK_BYTES))):
            left -= len(chunk)
        return b""

    def _read(self, file: BinaryIO, length: int) -> bytes:
        content = file.read(length)
        self._digest.update(content)
        self.bytes += len(content)
        return content

    def _finish(self, file: BinaryIO) -> None:
        while chunk := self._read(file, _CHUNK_BYTES):
            if any(chunk):
                raise DataError(f"{self.path}: more data after the end-of-archive mark: two archives in one file?")

    def _refuse_compressed(self, block: bytes) -> None:
        for magic, name in _COMPRESSED.items():
            if block.startswith(magic):
                raise DataError(f"{self.path}: compressed with {name}; samples are found by position: unpack it first")

    def _refused(self, reason: str) -> DataError:
        return DataError(f"{self.path}: entry {self._entry}: {reason}")


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    r"""Records ``LENGTH KEY=VALUE\n`` of a pax header; ValueError when they are not such."""
    while content.strip(b"\0"):
        number, _, _ = content[:20].partition(b" ")
        length = int(number)
        record = content[:length]
        if len(record) != length or length < 5 or not record.endswith(b"\n"):
            raise ValueError("length")
        key, separator, value = record[len(number) + 1 : -1].partition(b"=")
        if not separator:
            raise ValueError("separator")
        yield key.decode("utf-8"), value.decode("utf-8", "surrogateescape")
        content = content[length:]
