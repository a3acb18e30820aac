"""What readers noted of single files, counted by what they said: its size does not grow with the archive."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any

from data_shards.sample import Sample

FILE_NAME = "warnings.csv"
_NAMED = 10  # so many items are named for each note


@dataclass
class Notes:
    """Notes of samples, in the order in which they come.

    Attributes:
        counts: how many samples have a note, by its text.
        first: the first of them.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, sample: Sample) -> None:
        """Take in the notes of one sample, which messages call ``name``."""
        alone = len(sample.images) == 1
        found = {
            note if alone else f"{image_name}: {note}"
            for image_name, image in sample.images.items()
            for note in image.notes
        }
        for note in sorted(found):
            self._count(note, 1, [name])

    def merge(self, other: Notes) -> None:
        """Take in those of later samples."""
        for note, count in other.counts.items():
            self._count(note, count, other.first[note])

    def _count(self, note: str, count: int, names: list[str]) -> None:
        self.counts[note] = self.counts.get(note, 0) + count
        named = self.first.setdefault(note, [])
        named += names[: _NAMED - len(named)]

    @property
    def table(self) -> str:
        """CSV of the notes."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("warning", "items", "first"))
        table.writerows((note, count, "; ".join(self.first[note])) for note, count in self.counts.items())
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON types."""
        return {"counts": self.counts, "first": self.first}
