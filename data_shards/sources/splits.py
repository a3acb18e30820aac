"""Splits by subject: a rule of the salted hash alone, so that it holds for subjects that come later."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from data_shards.sample import SPLITS
from data_shards.support.documents import Document


class Shares(Document):
    """Share of the subjects in each split; they add up to 1."""

    train: float = Field(0.8, ge=0, le=1, description="share of the subjects for training")
    val: float = Field(0.1, ge=0, le=1, description="share for choosing settings")
    test: float = Field(0.1, ge=0, le=1, description="share for the final figure")

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"shares of the splits add up to {total:g}, expected 1")
        return self

    @property
    def rule(self) -> str:
        """The rule in words, for the dataset card."""
        parts = ", ".join(f"{getattr(self, split):.0%} {split}" for split in SPLITS)
        return f"by subject: {parts}, decided by the salted hash of the subject alone"


def split_by_subject(subject: str, shares: Shares) -> str:
    """The split of a subject.

    Args:
        subject: the salted hash, see :func:`data_shards.sample.subject_hash`; 16 hexadecimal digits.
        shares: share of each split.
    """
    fraction = int(subject, 16) / 16 ** len(subject)
    if fraction < shares.train:
        return "train"
    return "val" if fraction < shares.train + shares.val else "test"
