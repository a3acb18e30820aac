"""What the indices of a dataset say beside the manifest: samples by organ, modality, label and image size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_shards.format.manifest import ShardEntry, read_manifest
from data_shards.reading.pool import ShardPool
from data_shards.storage import open_storage
from data_shards.vocabulary import Modality, Organ


@dataclass
class SplitSurvey:
    """Samples of one split by what they show; images by how they were made and how large they are.

    Attributes:
        organs: samples by organ.
        modalities: images by modality; the images of a study count each.
        sizes: images by image name and size, such as ``("image", "1x28x28")``.
        unlabelled: samples without a label.
        attributes: smallest and largest value by name, of those that are known.
    """

    organs: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unlabelled: int = 0
    attributes: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, records: np.ndarray, attributes: tuple[str, ...]) -> None:
        """Count the records of one shard."""
        for organ, count in zip(*np.unique(records["organ"], return_counts=True), strict=True):
            self.organs[Organ(int(organ)).name] += int(count)
        self.unlabelled += int((~records["labelled"]).sum())
        for name in records["images"].dtype.names or ():
            slots = records["images"][name]
            slots = slots[slots["bytes"] > 0]
            for modality, count in zip(*np.unique(slots["modality"], return_counts=True), strict=True):
                self.modalities[Modality(int(modality)).name] += int(count)
            for shape, count in zip(*np.unique(slots["shape"], axis=0, return_counts=True), strict=True):
                self.sizes[name, "x".join(str(axis) for axis in shape if axis)] += int(count)
        for column, name in enumerate(attributes):
            known = records["attributes"][:, column]
            known = known[~np.isnan(known)]
            if known.size:
                low, high = self.attributes.get(name, (np.inf, -np.inf))
                self.attributes[name] = min(low, float(known.min())), max(high, float(known.max()))


def survey(folder: Path) -> dict[str, SplitSurvey]:
    """Count the samples of a folder of shards, split by split; one index is held at a time.

    Raises:
        DataError: the manifest or an index is missing or damaged.
    """
    manifest = read_manifest(folder)
    found = {}
    for split, entry in manifest.splits.items():
        found[split] = SplitSurvey()
        for shard in entry.shards:
            found[split].add(_records(folder, shard), manifest.attributes)
    return found


def _records(folder: Path, shard: ShardEntry) -> np.ndarray:
    return ShardPool(open_storage(folder, cache=None), [shard], None)[0].records
