"""An append-only file of digests, one per sample, in which equal ones are found without holding them all in memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.sample import SPLITS

# One entry: 128 bits of a digest, the split, and the position in the source.
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("split", "u1"), ("position", "<u8")])
# Entries that are sorted in memory at a time (100 MiB); more are first dealt into files by their leading bits.
_IN_MEMORY = 1 << 22


def digest128(*parts: bytes | memoryview) -> tuple[int, int]:
    """128 bits of BLAKE2b over ``parts``, as two integers."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    both = digest.digest()
    return int.from_bytes(both[:8], "little"), int.from_bytes(both[8:], "little")


@dataclass(frozen=True)
class Repeats:
    """What :meth:`Ledger.repeats` found.

    Attributes:
        distinct: different digests by split.
        shared: different digests that occur in both splits of a pair, such as ``train/test``.
        repeated: how many entries repeat an earlier one.
        again: positions of the entries that repeat an earlier one, at most as many as were asked for, in order.
        first: the position that each of them repeats.
        crosses: for each of them, whether the two are in different splits.
    """

    distinct: dict[str, int]
    shared: dict[str, int]
    repeated: int
    again: np.ndarray
    first: np.ndarray
    crosses: np.ndarray


class Ledger:
    """Entries in a file that only grows.

    Args:
        path: the file; made when missing.
        entries: how many entries it holds: what stands behind them, of a build that was cut off, is dropped.
    """

    def __init__(self, path: Path, entries: int = 0) -> None:
        self._path = path
        self.entries = entries
        path.touch()
        os.truncate(path, entries * ENTRY.itemsize)

    def append(self, entries: np.ndarray) -> None:
        """Add entries of dtype :data:`ENTRY`."""
        with self._path.open("ab") as file:
            file.write(entries.tobytes())
        self.entries += len(entries)

    def sync(self) -> None:
        """Bring all entries to the disk."""
        with self._path.open("ab") as file:
            os.fsync(file.fileno())

    def repeats(self, *, keep: int, crossing_only: bool = False) -> Repeats:
        """Find equal digests.

        Args:
            keep: how many repeated entries are listed; the counts cover all.
            crossing_only: list only those whose first occurrence is in another split.
        """
        masks: dict[int, int] = {}
        repeated = 0
        found: list[np.ndarray] = []
        for part in self._parts():
            high = np.sort(part["high"])
            if (high[1:] != high[:-1]).all():  # so it is for keys, and mostly for images
                for place in np.unique(part["split"]).tolist():
                    masks[1 << place] = masks.get(1 << place, 0) + int((part["split"] == place).sum())
                continue
            entries = part[np.lexsort((part["position"], part["low"], part["high"]))]
            new = np.ones(len(entries), bool)
            new[1:] = (np.diff(entries["high"]) != 0) | (np.diff(entries["low"]) != 0)
            starts = np.flatnonzero(new)
            in_splits = np.bitwise_or.reduceat(np.uint8(1) << entries["split"], starts)
            for mask, count in zip(*np.unique(in_splits, return_counts=True), strict=True):
                masks[int(mask)] = masks.get(int(mask), 0) + int(count)
            origin = entries[starts[np.cumsum(new) - 1]]
            crosses = origin["split"] != entries["split"]
            # A study may hold the same image twice: that repeats no other study.
            again = ~new & (origin["position"] != entries["position"])
            repeated += int(again.sum())
            listed = np.flatnonzero(again & crosses if crossing_only else again)
            triples = np.stack([entries["position"][listed], origin["position"][listed], crosses[listed]]).astype("<u8")
            found.append(triples[:, np.argsort(triples[0], kind="stable")][:, :keep])
        rows = np.concatenate(found, axis=1) if found else np.empty((3, 0), "<u8")
        again, first, crosses = rows[:, np.argsort(rows[0], kind="stable")][:, :keep]
        return Repeats(_distinct(masks), _shared(masks), repeated, again, first, crosses.astype(bool))

    def _parts(self) -> Iterator[np.ndarray]:
        """All entries in parts that fit in memory; equal digests are in one part."""
        if not self.entries:
            return
        mapped = np.memmap(self._path, ENTRY, "r", shape=(self.entries,))
        parts = -(-self.entries // _IN_MEMORY)
        if parts == 1:
            yield np.array(mapped)
            return
        with tempfile.TemporaryDirectory(dir=self._path.parent) as folder, contextlib.ExitStack() as stack:
            files = [stack.enter_context((Path(folder) / str(number)).open("w+b")) for number in range(parts)]
            for start in range(0, self.entries, _IN_MEMORY):
                block = np.array(mapped[start : start + _IN_MEMORY])
                home = block["high"] % np.uint64(parts)
                for number, file in enumerate(files):
                    file.write(block[home == number].tobytes())
            for file in files:
                file.seek(0)
                yield np.frombuffer(file.read(), ENTRY)


def _distinct(masks: dict[int, int]) -> dict[str, int]:
    counts = {split: sum(n for mask, n in masks.items() if mask >> place & 1) for place, split in enumerate(SPLITS)}
    return {split: count for split, count in counts.items() if count}


def _shared(masks: dict[int, int]) -> dict[str, int]:
    present = [place for place in range(len(SPLITS)) if any(mask >> place & 1 for mask in masks)]
    pairs = [(first, second) for first in present for second in present if first < second]
    return {
        f"{SPLITS[first]}/{SPLITS[second]}": sum(n for mask, n in masks.items() if mask >> first & mask >> second & 1)
        for first, second in pairs
    }
