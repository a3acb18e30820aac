"""What a build knows so far, how it grows chunk by chunk, and how it goes on from its journal."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from data_shards.format.index import Layout
from data_shards.format.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    LabelLayout,
    Manifest,
    SplitEntry,
    write_manifest,
)
from data_shards.format.tar import TRAILER
from data_shards.intensity import Rule, check_names, rule_of
from data_shards.sample import SPLITS
from data_shards.sources.base import Skipped, Source
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.files import write_atomic
from data_shards.writing.build_folder import BuildFolder
from data_shards.writing.chunk import Chunk, SplitChunk, Vocabulary
from data_shards.writing.duplicates import Ledgers, Policy
from data_shards.writing.ledger import ENTRY
from data_shards.writing.notes import FILE_NAME as NOTES_FILE
from data_shards.writing.notes import Notes
from data_shards.writing.shard_file import ClosedShard, ShardWriter
from data_shards.writing.statistics import SplitCounts

SKIPPED_FILE = "skipped.csv"
_COLUMNS = ("item", "reason", "subject")
# A build that is cut off loses this much work, or one shard, and the chunks that are on their way.
_COMMIT_SECONDS = 30.0


@dataclass
class Build:
    """What is known at :attr:`position`; all of it is in the journal of the folder after a commit.

    A commit writes down what was closed and left out since the one before, and besides only what does not grow, so it
    costs the same after any number of shards.

    Attributes:
        source: where the samples come from.
        folder: where the shards grow.
        shard_bytes: a shard is closed before it would grow larger.
        ledgers: what has to be known of all samples.
        position: samples of the source that were taken in.
        layout: of the records so far.
        counts: statistics by split.
        vocabulary: entries that occur.
        closed: shards that are complete, by split.
        open: the shard that grows, by split.
        unreadable: samples that could not be read.
        notes: what readers noted of the others.
    """

    source: Source
    folder: BuildFolder
    shard_bytes: int
    ledgers: Ledgers
    position: int = 0
    layout: Layout = field(default_factory=Layout)
    counts: dict[str, SplitCounts] = field(default_factory=dict)
    vocabulary: Vocabulary = field(default_factory=dict)
    closed: dict[str, list[ClosedShard]] = field(default_factory=dict)
    open: dict[str, ShardWriter] = field(default_factory=dict)
    unreadable: list[Skipped] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    # What the journal has: closed shards by split, unreadable samples, files of rows; and when it was written.
    _closed: dict[str, int] = field(default_factory=dict)
    _unreadable: int = 0
    _rows: set[str] = field(default_factory=set)
    _committed_s: float = field(default_factory=time.monotonic)

    @classmethod
    def begun(cls, source: Source, folder: BuildFolder, shard_bytes: int) -> Build:
        """A new build, or the one that the journal of the folder tells of.

        Raises:
            MedformerError: a file that the journal speaks of is gone or shorter than it was.
        """
        if not folder.commits:
            folder.keep()
            return cls(source, folder, shard_bytes, Ledgers(folder.path, source))
        closed: dict[str, list[ClosedShard]] = {}
        for commit in folder.commits:
            for split, shards in commit["closed"].items():
                closed.setdefault(split, []).extend(map(ClosedShard.from_json, shards))
        unreadable = [Skipped(**skipped) for commit in folder.commits for skipped in commit["unreadable"]]
        last = folder.commits[-1]
        _check_files(folder, last, closed)
        layout = Layout.from_json(last["layout"])
        return cls(
            source,
            folder,
            shard_bytes,
            Ledgers(folder.path, source, last["ledgers"]),
            position=last["position"],
            layout=layout,
            counts={split: SplitCounts.from_json(counts) for split, counts in last["counts"].items()},
            vocabulary=last["vocabulary"],
            closed=closed,
            open={split: ShardWriter.resumed(folder.path, state, layout) for split, state in last["open"].items()},
            unreadable=unreadable,
            notes=Notes(**last["notes"]),
            _closed={split: len(shards) for split, shards in closed.items()},
            _unreadable=len(unreadable),
            _rows={state["rows"] for state in last["open"].values()},
        )

    def add(self, chunk: Chunk, policy: Policy) -> None:
        """Append a chunk to the shards.

        Raises:
            DataError: its labels do not fit those before, or a fault that :meth:`Ledgers.check` finds.
        """
        self.ledgers.add(chunk, policy)
        for split, part in chunk.splits.items():
            self.layout = self._merged(chunk, part)
            self.counts.setdefault(split, SplitCounts()).merge(part.counts)
            self._append(split, part)
        for kind, entries in chunk.vocabulary.items():
            self.vocabulary.setdefault(kind, {}).update(entries)
        self.unreadable += chunk.skipped
        self.notes.merge(chunk.notes)
        self.position = chunk.last
        new = any(len(shards) > self._closed.get(split, 0) for split, shards in self.closed.items())
        if new or time.monotonic() - self._committed_s > _COMMIT_SECONDS:
            self._commit()

    def _merged(self, chunk: Chunk, part: SplitChunk) -> Layout:
        try:
            return self.layout.merged(part.layout)
        except DataError as error:
            names = [self.source.name_of(position) for position in (chunk.first, chunk.last - 1)]
            raise DataError(f"{names[0]} to {names[1]}: {error}") from None

    def _append(self, split: str, part: SplitChunk) -> None:
        """Deal the samples of a chunk to shards: as many to each as fit."""
        content = memoryview(part.content)
        first, start = 0, 0
        while first < len(part.ends):
            shard = self.open.get(split) or self._begin(split)
            room = self.shard_bytes - shard.size - len(TRAILER)
            last = int(part.ends.searchsorted(start + room, side="right"))
            if last <= first:
                if shard.samples:
                    self._close(split)
                    continue
                last = first + 1
            end = int(part.ends[last - 1])
            records = part.records[first:last].copy()
            for name in part.layout.images:
                slots = records["images"][name]
                slots["offset"][slots["bytes"] > 0] -= start
            shard.append(content[start:end], records, part.layout)
            first, start = last, end

    def _begin(self, split: str) -> ShardWriter:
        number = len(self.closed.setdefault(split, []))
        self.open[split] = ShardWriter(self.folder.path, f"{self.source.card.name}-{split}-{number:06d}")
        return self.open[split]

    def _close(self, split: str) -> None:
        self.closed[split].append(ClosedShard(self.open.pop(split).close(self.layout), self.layout))

    def _commit(self) -> None:
        record: dict[str, Any] = {
            "position": self.position,
            "open": {split: shard.save(self.layout) for split, shard in self.open.items()},
            "closed": {
                split: [shard.to_json() for shard in shards[self._closed.get(split, 0) :]]
                for split, shards in self.closed.items()
            },
            "layout": asdict(self.layout),
            "counts": {split: counts.to_json() for split, counts in self.counts.items()},
            "vocabulary": self.vocabulary,
            "unreadable": [asdict(skipped) for skipped in self.unreadable[self._unreadable :]],
            "notes": self.notes.to_json(),
            "ledgers": self.ledgers.saved(),
        }
        self.folder.commit(record)
        rows = {state["rows"] for state in record["open"].values()}
        for name in self._rows - rows:  # no journal speaks of them any more
            (self.folder.path / name).unlink()
        self._closed = {split: len(shards) for split, shards in self.closed.items()}
        self._unreadable, self._rows = len(self.unreadable), rows
        self._committed_s = time.monotonic()

    @property
    def _skipped(self) -> list[Skipped]:
        """All that is not in the dataset."""
        return [*self.source.skipped, *self.unreadable]

    def _nothing(self) -> str:
        """Why there is no sample."""
        if not self._skipped:
            return "the source has no samples"
        reason, count = Counter(skipped.reason for skipped in self._skipped).most_common(1)[0]
        return f"all {len(self._skipped)} items were left out, {count} of them for this reason: {reason}"

    def finished(self) -> Manifest:
        """Close the last shards and write the manifest."""
        for split in list(self.open):
            self._close(split)
        if not self.closed:
            raise DataError(f"{self.source.card.name}: {self._nothing()}")
        subjects, shared, repeated = self.ledgers.counted()
        splits = {
            split: SplitEntry(
                samples=self.counts[split].samples,
                subjects=subjects[split],
                classes=dict(sorted(self.counts[split].classes.items())),
                images=self.counts[split].layouts(),
                shards=tuple(shard.finished(self.folder.path, self.layout) for shard in self.closed[split]),
            )
            for split in SPLITS
            if split in self.closed
        }
        if self._skipped:
            write_atomic(self.folder.path / SKIPPED_FILE, skipped_table(self._skipped))
        if self.notes.counts:
            write_atomic(self.folder.path / NOTES_FILE, self.notes.table)
        manifest = write_manifest(
            self.folder.path,
            Manifest(
                schema_version=SCHEMA_VERSION,
                card=self.source.card,
                vocabulary={kind: dict(sorted(entries.items())) for kind, entries in self.vocabulary.items()},
                label=LabelLayout(width=self.layout.label_width, dtype=self.layout.label_dtype),
                attributes=self.layout.attributes,
                intensity=self._intensity(),
                splits=splits,
                shared_images=shared,
                repeated_images=repeated,
                skipped=len(self._skipped),
            ),
        )
        shards = [name for entry in splits.values() for shard in entry.shards for name in (shard.file, shard.index)]
        lists = [*([SKIPPED_FILE] if self._skipped else []), *([NOTES_FILE] if self.notes.counts else [])]
        self.folder.finish([FILE_NAME, *shards, *lists])
        return manifest

    def _intensity(self) -> dict[str, Rule]:
        """The rule of each image name that has one."""
        rules, names = self.source.intensity, self.layout.images
        check_names(rules, names)
        found = {name: rule_of(rules, name) for name in names}
        return {name: rule for name, rule in found.items() if rule is not None}


def _check_files(folder: BuildFolder, last: dict[str, Any], closed: dict[str, list[ClosedShard]]) -> None:
    """Raise :class:`MedformerError` when a file that the journal speaks of is gone or shorter than it was."""
    sizes = {f"{kind}.ledger": entries * ENTRY.itemsize for kind, entries in last["ledgers"].items()}
    sizes |= {f"{state['stem']}.tar": state["bytes"] for state in last["open"].values()}
    sizes |= {state["rows"]: 1 for state in last["open"].values()}
    sizes |= {shard.entry.file: shard.entry.bytes for shards in closed.values() for shard in shards}
    for name, size in sizes.items():
        path = folder.path / name
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise MedformerError(
                f"{path}: {found} bytes, expected {size}: the unfinished build was changed; --restart throws it away"
            )


def skipped_table(skipped: Iterable[Skipped]) -> str:
    """CSV of what is not in the dataset: item, salted hash of the subject, reason."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows([getattr(entry, column) for column in _COLUMNS] for entry in skipped)
    return text.getvalue()
