"""The volumes that a generator learns from, read from shards as they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from data_shards.intensity import Rule
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import DataError
from pretrain.intensity import TrainedOn, dataset_rule, in_range

_KEPT_BYTES = 1 << 30


class Volumes(Sequence[Tensor]):
    """Volumes ``C,D,H,W`` in [-1, 1] of one split; the axis across which slices lie comes first.

    They are kept as they are stored, and brought to that range by their rule whenever one is asked for.

    Args:
        folder: of the shards.
        split: which.
        axis: across which axis of D,H,W slices lie.
        image: name of the image, where a sample has several.
        rule: how stored values become that range; that of the manifest, or of 8 bits, when left out.

    Attributes:
        subjects: of each volume.
        trained_on: the rule, and of what images.

    Raises:
        DataError: there is no such split, or it holds planes.
        ConfigError: values of more than 8 bits that no rule is given for, or the rule is not for them.
    """

    def __init__(self, folder: Path, split: str, axis: int, image: str | None = None, rule: Rule | None = None) -> None:
        self._dataset = ShardedDataset(folder, split, image=image)
        self._axis = axis
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._bytes = 0
        self.subjects: np.ndarray = self._dataset.describe(np.arange(len(self._dataset))).subject_B
        self._rule = dataset_rule(self._dataset, rule, key="intensity")
        first = self[0]
        if first.ndim != 4:
            raise DataError(f"{folder}: planes; a generator learns from the slices of volumes")
        modality = tuple(sorted(self._dataset.manifest.vocabulary.get("modality", ())))
        self.trained_on = TrainedOn(modality=modality, channels=first.shape[0], rule=self._rule)

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, row: int) -> Tensor: ...

    @overload
    def __getitem__(self, row: slice) -> list[Tensor]: ...

    def __getitem__(self, row: int | slice) -> Tensor | list[Tensor]:
        """The volume at ``row``."""
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        if row not in self._kept:
            pixels = self._dataset.read(np.array([row])).images[0]
            self._kept[row] = torch.from_numpy(np.ascontiguousarray(pixels))
            self._bytes += self._kept[row].nbytes
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        volume = in_range(self._kept[row][None], self._rule)[0]
        return volume if volume.ndim < 4 else volume.movedim(1 + self._axis, 1)
