"""Cases whose images were changed as acquisition changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from data_shards.intensity import Rule
from data_shards.sample import Image
from finetune.cases import Cases
from finetune.classifier.seen import looked_at
from finetune.images import Pictures, Study
from finetune.shift.base import Corruption
from pretrain.intensity.value_range import stored_again, value_range
from pretrain.views.random import sample_keys, stream


@dataclass(frozen=True)
class Change:
    """A corruption at a severity.

    Attributes:
        corruption: which.
        severity: 1 to 5.
    """

    corruption: Corruption
    severity: int


class CorruptedPictures(Pictures):
    """The studies of others, changed when they are read.

    What is drawn for an image follows from the seed, from the pixels of its study and its name there, and from the
    corruption: so it is the same in whatever selection or order the image is, and at every severity.

    Args:
        base: the studies.
        changes: one after the other.
        seed: of what is drawn.
    """

    def __init__(self, base: Pictures, changes: Sequence[Change], seed: int) -> None:
        super().__init__()
        self._base, self._changes, self._seed = base, changes, seed

    def __len__(self) -> int:
        return len(self._base)

    def study(self, position: int) -> Study:
        """The study at ``position``, changed."""
        study = self._base.study(position)
        number = int.from_bytes(self._base.digest(position)[:8], "little", signed=True)
        key_1 = sample_keys(self._seed, 0, 0, torch.tensor([number]), 0)
        images = {name: self._changed(image, study.rule(name), name, key_1) for name, image in study.images.items()}
        return replace(study, images=images)

    def _changed(self, image: Image, rule: Rule, name: str, key_1: torch.Tensor) -> Image:
        low, high = value_range(image.pixels, rule)
        if not high > low:
            return image
        values = torch.from_numpy((image.pixels[None].astype(np.float64) - low) / (high - low)).float().clamp_(0, 1)
        for change in self._changes:
            keys_1 = stream(key_1, f"corruption.{change.corruption.name}.{name}")
            values = change.corruption(values, keys_1, change.severity)
        back = values[0].double().numpy() * (high - low) + low
        return replace(image, pixels=stored_again(back, image.pixels.dtype))


def corrupted(cases: Cases, changes: Sequence[Change], seed: int) -> Cases:
    """The same cases, their images changed; a classifier that takes these takes those.

    Args:
        cases: of planes or volumes.
        changes: one after the other.
        seed: of what is drawn.
    """
    assert cases.rows is not None
    base, rows = cases.pictures.home(cases.rows)
    pictures = CorruptedPictures(base, changes, seed)
    # An image that has become dark or empty is measured, not refused as unlike those that were learned from.
    pictures.memo["looks"] = looked_at(base, rows)
    return replace(cases, images=pictures, spacing_mm=None, rows=rows)
