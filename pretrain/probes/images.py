"""Labelled images of a shard folder, chosen once: some to fit on, others of other subjects to score on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_shards.intensity import BYTES, Rule
from data_shards.order.permutation import Permutation
from data_shards.reading.cropped import Crop
from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Task
from pretrain.intensity import dataset_rule, shown_shape
from pretrain.probes.config import ProbedConfig


@dataclass(frozen=True)
class Labelled:
    """Some images of a split.

    Attributes:
        dataset: the split.
        index_N: which of its samples.
        label_NL: class of each, one column; or 0 and 1 in a column for each label.
        subject_N: hashed.
        rule: how values become the range of the network.
        window: voxels along D,H,W of the crops that the network is trained on, where volumes may be larger and are
            read in windows of it, one at a time; None where images are read whole, and are of one size.
    """

    dataset: ShardedDataset
    index_N: np.ndarray
    label_NL: np.ndarray
    subject_N: np.ndarray
    rule: Rule = BYTES
    window: tuple[int, ...] | None = None

    def rows(self, chosen: np.ndarray) -> Labelled:
        """Some of them."""
        return replace(
            self, index_N=self.index_N[chosen], label_NL=self.label_NL[chosen], subject_N=self.subject_N[chosen]
        )


def labelled_images(
    config: ProbedConfig, most: int, cache: Cache, crop: Crop | None = None
) -> tuple[Labelled, Labelled]:
    """The images to fit on and those to score on; no subject is in both, as shards hold a subject in one split alone.

    Args:
        config: the folder and its splits.
        most: of either part.
        cache: for shards on a server.
        crop: what the network is shown of volumes.

    Raises:
        DataError: the folder or a split is not there.
        ConfigError: its images cannot be probed on; what was found and what is expected.
    """
    first, second = (_labelled(config, split, cache, crop) for split in (config.fit, config.score))
    where = first.dataset.folder
    if config.fit == config.score:
        subjects = np.unique(first.subject_N)
        half = subjects[Permutation(len(subjects), "probe", where_name(first))(np.arange(len(subjects) // 2))]
        held = np.isin(first.subject_N, half)
        first, second = first.rows(~held), second.rows(held)
    first, second = (_drawn(part, most) for part in (first, second))
    if not len(second.index_N):
        raise ConfigError(f"probes: {where}: no labelled image to score on in split {config.score}")
    if not len(first.index_N) or (first.label_NL == first.label_NL[:1]).all():
        raise ConfigError(f"probes: {where}: the labelled images to fit on, in split {config.fit}, are of one class")
    return first, second


def where_name(part: Labelled) -> str:
    """A name of the images that does not depend on where they lie."""
    return f"{part.dataset.card.name}/{part.dataset.split}/{part.dataset.image}"


def _labelled(config: ProbedConfig, split: str, cache: Cache, crop: Crop | None) -> Labelled:
    dataset = ShardedDataset(config.path, split, image=config.image, cache=cache)
    window = _window(dataset, crop)
    try:
        rule = dataset_rule(dataset, config.intensity, key="intensity in probes.datasets")
        if window is None:
            shown_shape(dataset, rule)
    except ConfigError as error:
        raise ConfigError(f"probes: {error}") from None
    described = dataset.describe(np.arange(len(dataset)))
    label_NL = described.label_BL
    if not label_NL.shape[1]:
        raise ConfigError(f"probes: {dataset.folder}: split {split} has no labels")
    several = dataset.card.task == Task.multilabel.name
    if label_NL.dtype.kind != "i" or (label_NL.shape[1] > 1 and not several):
        raise ConfigError(
            f"probes: {dataset.folder}: labels of a {dataset.card.task} task; expected a class for each image, or a "
            "yes or no for each label"
        )
    known = np.flatnonzero((label_NL >= 0).all(axis=1))
    return Labelled(dataset, np.arange(len(dataset)), label_NL, described.subject_B, rule, window).rows(known)


def _window(dataset: ShardedDataset, crop: Crop | None) -> tuple[int, ...] | None:
    """Voxels of a crop, where some volume may be larger."""
    if crop is None or not dataset.volumetric:
        return None
    size, shape = crop.along(3, dataset.folder), dataset.image_shape
    fits = shape is not None and all(length <= side for length, side in zip(shape[1:], size, strict=True))
    return None if fits else size


def _drawn(part: Labelled, most: int) -> Labelled:
    """At most so many, the same ones every time, in the order in which they lie on the disk."""
    count = len(part.index_N)
    if count <= most:
        return part
    return part.rows(np.sort(Permutation(count, "probe", where_name(part))(np.arange(most))))
