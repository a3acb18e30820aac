"""A shard that is being written: the tar file, its checksum, and the index it will have."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.format import tar
from data_shards.format.bands import bands_of_index, bands_of_shard
from data_shards.format.index import Layout, read_index, widen, write_index
from data_shards.format.manifest import ShardEntry
from data_shards.support.files import sha256_of

# Rows of a shard that is still open, for a build that is cut off.
_ROWS_SUFFIX = ".rows.npy"


class ShardWriter:
    """Appends encoded samples to one tar file.

    Args:
        folder: where the file is made.
        stem: its name without suffix.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.stem = stem
        self.size = 0
        self.samples = 0
        self._folder = folder
        self._path = folder / f"{stem}.tar"
        self._file = self._path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._records: list[tuple[np.ndarray, Layout]] = []

    @classmethod
    def resumed(cls, folder: Path, state: dict[str, Any], layout: Layout) -> ShardWriter:
        """Go on from what :meth:`save` noted; what was appended later is cut off."""
        writer = cls.__new__(cls)
        writer.stem, writer.size, writer.samples = state["stem"], state["bytes"], state["samples"]
        writer._folder = folder
        writer._path = folder / f"{writer.stem}.tar"
        os.truncate(writer._path, writer.size)
        with writer._path.open("rb") as file:
            writer._digest = hashlib.file_digest(file, "sha256")
        writer._file = writer._path.open("ab", buffering=0)
        writer._records = [(np.array(read_index(folder / state["rows"], writer.samples)), layout)]
        return writer

    @property
    def _index(self) -> Path:
        return self._folder / f"{self.stem}.index.npy"

    def append(self, content: memoryview, records: np.ndarray, layout: Layout) -> None:
        """Add whole samples; the offsets of ``records`` are from the start of ``content``."""
        placed = records.copy()
        for name in layout.images:
            slots = placed["images"][name]
            slots["offset"] += np.where(slots["bytes"] > 0, np.uint64(self.size), np.uint64(0))
        self._records.append((placed, layout))
        self._write(content)
        self.samples += len(records)

    def save(self, layout: Layout) -> dict[str, Any]:
        """Bring all of it to the disk; returns what :meth:`resumed` needs besides.

        The rows go to a file of their own: the state before stays whole until the new one is noted.
        """
        rows = f"{self.stem}.{self.samples}{_ROWS_SUFFIX}"
        write_index(self._folder / rows, self._joined(layout))
        os.fsync(self._file.fileno())
        return {"stem": self.stem, "bytes": self.size, "samples": self.samples, "rows": rows}

    def close(self, layout: Layout) -> ShardEntry:
        """Finish the tar file and write its index in ``layout``; sizes and sums of the index come with the last one."""
        self._write(memoryview(tar.TRAILER))
        os.fsync(self._file.fileno())
        self._file.close()
        records = self._joined(layout)
        write_index(self._index, records, bands_of_shard(self._path, records))
        return ShardEntry(
            file=self._path.name,
            samples=self.samples,
            bytes=self.size,
            sha256=self._digest.hexdigest(),
            index=self._index.name,
            index_bytes=0,
            index_sha256="",
        )

    def _joined(self, layout: Layout) -> np.ndarray:
        records = np.concatenate([widen(part, narrow, layout) for part, narrow in self._records])
        self._records = [(records, layout)]
        return records

    def _write(self, content: memoryview) -> None:
        rest = content
        while rest:
            rest = rest[self._file.write(rest) :]
        self._digest.update(content)
        self.size += len(content)


@dataclass(frozen=True)
class ClosedShard:
    """A shard that is complete but for the final width of its index.

    Attributes:
        entry: as it will stand in the manifest.
        layout: of its index.
    """

    entry: ShardEntry
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        return {"entry": self.entry.model_dump(), "layout": asdict(self.layout)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ClosedShard:
        """What :meth:`to_json` wrote down."""
        return cls(ShardEntry(**content["entry"]), Layout.from_json(content["layout"]))

    def finished(self, folder: Path, layout: Layout) -> ShardEntry:
        """Bring the index to the layout of the whole dataset; only now is it known how wide keys and labels are."""
        path = folder / self.entry.index
        if self.layout != layout:
            records = read_index(path, self.entry.samples)
            bands = bands_of_index(path, records)
            write_index(path, widen(np.asarray(records), self.layout, layout), bands)
        return self.entry.model_copy(update={"index_bytes": path.stat().st_size, "index_sha256": sha256_of(path)})
