"""An append-only file of JSON records, a line and a checksum each: what was written last is whole or not there."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from data_shards.support.errors import DataError
from data_shards.support.files import write_atomic


class Journal:
    """Records that a process adds one by one, and that another one reads when the first was cut off.

    Adding a record costs what the record costs, whatever stands before it. A last line that is incomplete or fails its
    checksum was being written when the process or the machine stopped: it is dropped. Such a line before the last one
    is damage.

    Args:
        path: the file.
        records: what it holds.
        size: bytes of the lines of ``records``; what stands behind them is cut off by the first :meth:`add`.
    """

    def __init__(self, path: Path, records: list[dict[str, Any]], size: int) -> None:
        self.path = path
        self.records = records
        self._size = size

    @classmethod
    def begun(cls, path: Path, first: dict[str, Any]) -> Journal:
        """A journal of one record, in place of whatever stood there."""
        line = _line(first)
        write_atomic(path, line)
        return cls(path, [first], len(line))

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal at ``path``.

        Raises:
            DataError: a line before the last one is damaged.
            OSError: the file cannot be read.
        """
        records: list[dict[str, Any]] = []
        size = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                record = _record(line)
                if record is None:
                    if file.read(1):
                        raise DataError(f"{path}: line {number} is damaged; --restart begins anew")
                    break
                records.append(record)
                size += len(line)
        return cls(path, records, size)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; it is on the disk afterwards. It is not kept in :attr:`records`."""
        line = _line(record)
        with self.path.open("r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)


def _line(record: dict[str, Any]) -> bytes:
    content = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None when it is not whole."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        return None
    record: dict[str, Any] = json.loads(content)
    return record
