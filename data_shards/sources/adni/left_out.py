"""What is not in the dataset, before the subject is hashed."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_shards.sample import subject_hash
from data_shards.sources.base import Skipped


@dataclass(frozen=True)
class LeftOut:
    """Like :class:`~data_shards.sources.base.Skipped`, with the identifier of the subject where it is known.

    ``lost`` is true for what is damaged, also of what tables and XML files say of images.
    """

    item: str
    reason: str
    ptid: str = field(default="", repr=False)
    lost: bool = False

    def skipped(self, salt: str) -> Skipped:
        """The same with a salted hash in place of the identifier."""
        return Skipped(self.item, self.reason, subject_hash(self.ptid, salt) if self.ptid else "", self.lost)
