"""What is not in the dataset, before the subject is hashed."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_shards.sample import subject_hash
from data_shards.sources.base import Skipped


@dataclass(frozen=True)
class LeftOut:
    """Like :class:`~data_shards.sources.base.Skipped`, with the identifier of the subject where it is known."""

    item: str
    reason: str
    ptid: str = field(default="", repr=False)

    def skipped(self, salt: str) -> Skipped:
        """The same with a salted hash in place of the identifier."""
        return Skipped(self.item, self.reason, subject_hash(self.ptid, salt) if self.ptid else "")
