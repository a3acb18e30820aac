"""Turns a source into shards, indices and a manifest: the same bytes every time, also when a build is cut off."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.format.index import Layout
from data_shards.format.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    LabelLayout,
    Manifest,
    ShardEntry,
    SplitEntry,
    read_manifest,
    write_manifest,
)
from data_shards.format.tar import TRAILER
from data_shards.sample import SPLITS
from data_shards.sources.base import Skipped, Source
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.files import refuse_existing, write_atomic
from data_shards.support.progress import Progress
from data_shards.writing.chunk import Chunk, SplitChunk, Vocabulary
from data_shards.writing.duplicates import Excluding, Ledgers, Policy
from data_shards.writing.journal import BuildFolder, build_folder, fingerprint
from data_shards.writing.ledger import ENTRY
from data_shards.writing.notes import FILE_NAME as NOTES_FILE
from data_shards.writing.notes import Notes
from data_shards.writing.shard_file import ROWS_SUFFIX, ClosedShard, ShardWriter
from data_shards.writing.statistics import SplitCounts
from data_shards.writing.workers import Probe, encoded_chunks, probe

SHARD_BYTES = 64 << 20
SKIPPED_FILE = "skipped.csv"
_COLUMNS = ("item", "reason", "subject")
# A build that is cut off loses this much work, or one shard, and the chunks that are on their way.
_COMMIT_SECONDS = 30.0


def write_dataset(
    source: Source,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 1,
    skip_errors: bool = False,
    duplicates: Policy | None = None,
    overwrite: bool = False,
    restart: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write every sample of ``source`` below ``out``, in the order of the source within each split.

    The folder appears when it is complete. The bytes depend on the source and on ``shard_bytes``, not on the number of
    processes nor on interruptions. Memory does not grow with the number of samples. A build that was cut off, by
    whatever, goes on from its last closed shard when the same call is made again.

    Args:
        source: where the samples come from.
        out: the folder to make.
        shard_bytes: a shard is closed before it would grow larger; one sample may exceed it alone.
        workers: processes that read and encode samples; with more than one, a script that calls this needs the usual
            ``if __name__ == "__main__"``.
        skip_errors: leave out samples that cannot be read, and list them in ``skipped.csv``; the default stops.
        duplicates: what to do with images that occur twice: ``refuse``, ``drop`` all but the first, or ``allow``. The
            default is the source's own.
        overwrite: replace ``out`` when it exists.
        restart: throw away what an unfinished build has left, instead of going on.
        options: JSON values from which the source was made; an unfinished build with other ones does not go on. Without
            them it is told by the card and the first sample.
        progress: is advanced by the number of samples.

    Returns:
        The manifest that was written.

    Raises:
        MedformerError: ``out`` exists, the disk refuses, a process died, or an unfinished build of something else
            stands in the way.
        DataError: a sample cannot be read or stored, a key occurs twice, a subject is in two splits, an image occurs
            twice, or there is no sample.
    """
    if shard_bytes < 1:
        raise DataError(f"shards of {shard_bytes} bytes cannot be written; at least 1")
    refuse_existing(out, overwrite=overwrite)
    if not skip_errors:
        _refuse_losses(source)
    policy: Policy = duplicates or source.duplicates
    probed = probe(source)
    card = source.card.model_dump(mode="json")
    mark = fingerprint(
        SCHEMA_VERSION, card, options or {}, len(source), shard_bytes, probed.length, probed.digest, skip_errors, policy
    )
    with build_folder(out, mark, restart=restart) as folder:
        refuse_existing(out, overwrite=overwrite)  # another process may have been faster
        if folder.complete:
            return read_manifest(folder.path)
        build = _run(source, folder, policy, shard_bytes, probed, workers, skip_errors, progress)
        dropped = build.ledgers.repeated(policy)
        if dropped:
            folder.commit({"dropped": dropped})
            build = _run(source, folder, "refuse", shard_bytes, probed, workers, skip_errors, progress)
        return build.finished()


def _refuse_losses(source: Source) -> None:
    """Raise :class:`DataError` when the listing already found images that cannot be read."""
    lost = [skipped for skipped in source.skipped if skipped.lost]
    if lost:
        others = f", and {len(lost) - 1} more like it" if len(lost) > 1 else ""
        raise DataError(f"{lost[0].item}: {lost[0].reason}{others}; --on-error skip leaves such items out")


def _run(
    source: Source,
    folder: BuildFolder,
    policy: Policy,
    shard_bytes: int,
    probed: Probe,
    workers: int,
    skip_errors: bool,
    progress: Progress | None,
) -> _Build:
    """Append every chunk that the folder does not have yet."""
    dropped = folder.note.get("dropped", [])
    chosen = Excluding(source, np.array(dropped, np.int64)) if dropped else source
    build = _Build.begun(chosen, folder, shard_bytes)
    if progress is not None:
        progress.begin(len(chosen), build.position)
    for chunk in encoded_chunks(chosen, probed, start=build.position, workers=workers, skip_errors=skip_errors):
        build.add(chunk, policy)
        if progress is not None:
            progress.advance(chunk.last - chunk.first)
    build.ledgers.check(policy)
    return build


@dataclass
class _Build:
    """What is known at :attr:`position`; all of it is in the note of the folder after a commit."""

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
    skipped: list[Skipped] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    committed_s: float = field(default_factory=time.monotonic)

    @classmethod
    def begun(cls, source: Source, folder: BuildFolder, shard_bytes: int) -> _Build:
        """A new build, or the one that the folder's note tells of."""
        note = folder.note
        if "position" not in note:
            folder.keep()
            return cls(source, folder, shard_bytes, Ledgers(folder.path, source), skipped=list(source.skipped))
        _check_files(folder)
        layout = Layout.from_json(note["layout"])
        return cls(
            source,
            folder,
            shard_bytes,
            Ledgers(folder.path, source, note["ledgers"]),
            position=note["position"],
            layout=layout,
            counts={split: SplitCounts.from_json(counts) for split, counts in note["counts"].items()},
            vocabulary=note["vocabulary"],
            closed={
                split: [
                    ClosedShard(ShardEntry(**shard["entry"]), Layout.from_json(shard["layout"])) for shard in shards
                ]
                for split, shards in note["closed"].items()
            },
            open={split: ShardWriter.resumed(folder.path, state, layout) for split, state in note["open"].items()},
            skipped=[Skipped(**skipped) for skipped in note["skipped"]],
            notes=Notes(**note["notes"]),
        )

    def add(self, chunk: Chunk, policy: Policy) -> None:
        """Append a chunk to the shards."""
        self.ledgers.add(chunk, policy)
        shards = sum(map(len, self.closed.values()))
        for split, part in chunk.splits.items():
            self.layout = self._merged(chunk, part)
            self.counts.setdefault(split, SplitCounts()).merge(part.counts)
            self._append(split, part)
        for kind, entries in chunk.vocabulary.items():
            self.vocabulary.setdefault(kind, {}).update(entries)
        self.skipped += chunk.skipped
        self.notes.merge(chunk.notes)
        self.position = chunk.last
        if sum(map(len, self.closed.values())) > shards or time.monotonic() - self.committed_s > _COMMIT_SECONDS:
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
        note: dict[str, Any] = {
            "dropped": self.folder.note.get("dropped", []),
            "position": self.position,
            "open": {split: shard.save(self.layout) for split, shard in self.open.items()},
            "closed": {
                split: [{"entry": shard.entry.model_dump(), "layout": asdict(shard.layout)} for shard in shards]
                for split, shards in self.closed.items()
            },
            "layout": asdict(self.layout),
            "counts": {split: counts.to_json() for split, counts in self.counts.items()},
            "vocabulary": self.vocabulary,
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "notes": self.notes.to_json(),
            "ledgers": self.ledgers.saved(),
        }
        self.folder.commit(note)
        self._forget_rows({state["rows"] for state in note["open"].values()})
        self.committed_s = time.monotonic()

    def _forget_rows(self, needed: Container[str]) -> None:
        """Delete the rows that no note speaks of any more."""
        for path in self.folder.path.glob(f"*{ROWS_SUFFIX}"):
            if path.name not in needed:
                path.unlink()

    def _nothing(self) -> str:
        """Why there is no sample."""
        if not self.skipped:
            return "the source has no samples"
        reason, count = Counter(skipped.reason for skipped in self.skipped).most_common(1)[0]
        return f"all {len(self.skipped)} items were left out, {count} of them for this reason: {reason}"

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
        if self.skipped:
            write_atomic(self.folder.path / SKIPPED_FILE, skipped_table(self.skipped))
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
                splits=splits,
                shared_images=shared,
                repeated_images=repeated,
                skipped=len(self.skipped),
            ),
        )
        shards = [name for entry in splits.values() for shard in entry.shards for name in (shard.file, shard.index)]
        lists = [*([SKIPPED_FILE] if self.skipped else []), *([NOTES_FILE] if self.notes.counts else [])]
        self.folder.finish([FILE_NAME, *shards, *lists])
        return manifest


def _check_files(folder: BuildFolder) -> None:
    """Raise :class:`MedformerError` when a file that the note speaks of is gone or shorter than it was."""
    note = folder.note
    sizes = {f"{kind}.ledger": entries * ENTRY.itemsize for kind, entries in note["ledgers"].items()}
    sizes |= {f"{state['stem']}.tar": state["bytes"] for state in note["open"].values()}
    sizes |= {shard["entry"]["file"]: shard["entry"]["bytes"] for shards in note["closed"].values() for shard in shards}
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
