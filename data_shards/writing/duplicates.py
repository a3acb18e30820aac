"""Keys that occur twice, subjects on both sides of a split, and images that occur twice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from data_shards.sample import Sample
from data_shards.sources.base import Skipped, Source
from data_shards.support.errors import DataError
from data_shards.writing.chunk import Chunk
from data_shards.writing.ledger import Ledger, Repeats

Policy = Literal["refuse", "drop", "allow"]

_KINDS = ("keys", "subjects", "contents")
# The first look for faults; the next ones follow whenever the number of samples has doubled, so that a fault at the
# beginning of a long build does not come out at its end, and all looks together cost no more than the last two.
_FIRST_LOOK = 4096


class Ledgers:
    """What has to be known of all samples of a build, kept on the disk.

    Args:
        folder: where the files are made.
        source: for the names of what is at fault.
        saved: what :meth:`saved` gave, to go on from there.
    """

    def __init__(self, folder: Path, source: Source, saved: dict[str, int] | None = None) -> None:
        counts = saved or dict.fromkeys(_KINDS, 0)
        self._source = source
        self._ledgers = {kind: Ledger(folder / f"{kind}.ledger", counts[kind]) for kind in _KINDS}
        self._next_look = _FIRST_LOOK
        while self._next_look <= counts["keys"]:
            self._next_look *= 2

    def add(self, chunk: Chunk, policy: Policy) -> None:
        """Take in a chunk.

        Raises:
            DataError: as :meth:`check`, when it was time to look.
        """
        for kind in _KINDS:
            self._ledgers[kind].append(getattr(chunk, kind))
        if self._ledgers["keys"].entries >= self._next_look:
            self.check(policy)
            self._next_look *= 2

    def saved(self) -> dict[str, int]:
        """How many entries the files hold, all of them on the disk."""
        for ledger in self._ledgers.values():
            ledger.sync()
        return {kind: ledger.entries for kind, ledger in self._ledgers.items()}

    def check(self, policy: Policy) -> None:
        """Look for what must not be in a dataset.

        Raises:
            DataError: a key occurs twice, a subject is in two splits, or, by ``policy``, an image occurs twice.
        """
        keys = self._ledgers["keys"].repeats(keep=1)
        if keys.again.size:
            _, sample, name = self._pair(keys)
            raise DataError(f"{name}: sample {sample.key}: the key occurs twice")
        subjects = self._ledgers["subjects"].repeats(keep=1, crossing_only=True)
        if subjects.again.size:
            home, sample, name = self._pair(subjects)
            raise DataError(
                f"{name}: sample {sample.key}: its subject {sample.subject} is in split {home.split} and in split "
                f"{sample.split}; splits are by subject"
            )
        if policy == "refuse":
            contents = self._ledgers["contents"].repeats(keep=1)
            if contents.again.size:
                first, sample, name = self._pair(contents)
                raise DataError(
                    f"{name}: sample {sample.key} ({sample.split}) has the same pixels as sample {first.key} "
                    f"({first.split}); drop such samples or allow them with --duplicates"
                )

    def repeated(self, policy: Policy) -> list[int]:
        """Positions of the images that repeat an earlier one; empty unless the policy is to drop them."""
        contents = self._ledgers["contents"]
        return np.unique(contents.repeats(keep=contents.entries).again).tolist() if policy == "drop" else []

    def counted(self) -> tuple[dict[str, int], dict[str, int], int]:
        """Subjects by split, images shared by each pair of splits, and images that repeat an earlier one."""
        contents = self._ledgers["contents"].repeats(keep=0)
        subjects = self._ledgers["subjects"].repeats(keep=0)
        return subjects.distinct, contents.shared, contents.repeated

    def _pair(self, repeats: Repeats) -> tuple[Sample, Sample, str]:
        """The two samples of the first repeat, and the name of the later one."""
        again = int(repeats.again[0])
        return self._source.sample(int(repeats.first[0])), self._source.sample(again), self._source.name_of(again)


class Excluding(Source):
    """A source without some of its positions.

    Args:
        source: the whole.
        positions: those left out, sorted.
    """

    def __init__(self, source: Source, positions: np.ndarray) -> None:
        self._source = source
        self._kept = np.setdiff1d(np.arange(len(source)), positions)
        self.card = source.card
        self.warnings = source.warnings
        self.intensity = source.intensity
        reason = "the same pixels as an earlier sample"
        self.skipped = [*source.skipped, *(Skipped(source.name_of(int(position)), reason) for position in positions)]

    def __len__(self) -> int:
        return len(self._kept)

    def sample(self, position: int) -> Sample:
        """The sample at ``position`` of those that are left."""
        return self._source.sample(int(self._kept[position]))

    def name_of(self, position: int) -> str:
        """As the whole source calls it."""
        return self._source.name_of(int(self._kept[position]))

    def origin(self, position: int) -> dict[str, str]:
        """As the whole source has it."""
        return self._source.origin(int(self._kept[position]))
