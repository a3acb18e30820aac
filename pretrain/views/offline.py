"""Augmented copies as samples of shards, made by the code of pretraining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from data_shards.card import DatasetCard
from data_shards.intensity import BYTES
from data_shards.reading.reader import ShardedDataset
from data_shards.reading.records import Records
from data_shards.sample import MASK, Image, Sample
from data_shards.sources.base import Source
from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Modality, Organ, Task
from pretrain.intensity.of_dataset import dataset_rule
from pretrain.intensity.value_range import stored_again, value_range
from pretrain.views.config import ViewConfig
from pretrain.views.pipeline import Pipeline
from pretrain.views.policy import Ruled, under_policy
from pretrain.views.random import sample_keys

_WORDS = "augmented copies of each training image"


class Augmented(Source):
    """The samples of a folder of shards, and augmented copies of those of its training split.

    Copies follow their image, with its label, subject and attributes; their keys end in ``-view-1``, ``-view-2``, ...
    Copy ``c`` of a sample is the view that pretraining with the same seed shows of it in epoch ``c``. Images of other
    splits are not touched. A copy has the spacing of its image, as a view has in pretraining; what a crop or a scale
    makes larger or smaller is part of the augmentation.

    All keep the dtype of the values, and the manifest the rule by which they are read. What is changed of a copy is
    changed on a linear scale between the values that count as black and white
    (:func:`~pretrain.intensity.value_range.value_range`): of 8 bits and of one window these are the ends of the rule,
    so that the copy under its rule is the view, but for rounding to the dtype. Of several windows they are the lowest
    and the highest end, of percentiles and z-scores the smallest and the largest value of the image.

    Args:
        folder: a folder of shards.
        views: how strongly; under the policy that they name.
        copies: of each image of the training split, at least 1.
        seed: of the random numbers.
        image: which image of the studies; may be left out when they have only one.

    Raises:
        ConfigError: the views ask for what is not for these images, or change nothing; images are of several sizes or
            dtypes, or of values that no rule is given for.
        DataError: the folder is damaged.
    """

    duplicates = "allow"

    def __init__(self, folder: Path, views: ViewConfig, copies: int, seed: int = 0, image: str | None = None) -> None:
        if copies < 1:
            raise ConfigError(f"copies: expected a number above 0, found {copies}")
        train = ShardedDataset(folder, "train", image=image)
        if _WORDS in train.card.note:
            raise ConfigError(f"{folder}: it has augmented copies already; augment the folder that it was made of")
        self._datasets = {
            split: ShardedDataset(folder, split, image=train.image)
            for split, entry in train.manifest.splits.items()
            if train.image in entry.images
        }
        if MASK in train.entry.images:
            raise ConfigError(f"{folder}: the studies have masks, which copies would no longer fit")
        self._rule = dataset_rule(train)
        shape = train.image_shape
        if shape is None:
            raise ConfigError(
                f"{folder}: expected images of one size and one dtype; `prepare.size` and `stored` of `medformer "
                "shards build` make such"
            )
        self.intensity = {} if train.intensity is None else {train.image: train.intensity}
        if any(each > 1 for each in views.coarser) or any(views.slices):
            raise ConfigError("coarser and slices make pairs of views of different kinds: they are for pretraining")
        words = train.manifest.vocabulary
        self.ruled: Ruled = under_policy(views, words["organ"], words["modality"], shape)
        self.ruled.views.check_data(shape)
        if not self.ruled.views.acting_on(shape):
            raise ConfigError(f"{folder}: no transform is left that changes such images, so copies would be the images")
        self._copies, self._seed, self._image = copies, seed, train.image
        self._pipeline = Pipeline(self.ruled.views)
        self.card = _card(train.card, copies, seed)
        self._starts = np.cumsum(
            [0, *(len(each) * (1 + copies * (name == "train")) for name, each in self._datasets.items())]
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def sample(self, position: int) -> Sample:
        """An image as it is, or a copy."""
        place = int(np.searchsorted(self._starts, position, side="right")) - 1
        split, dataset = list(self._datasets.items())[place]
        each = 1 + self._copies if split == "train" else 1
        row, copy = divmod(position - int(self._starts[place]), each)
        records = dataset.read(np.array([row]))
        pixels = records.stacked[0] if copy == 0 else self._view(records, row, copy)
        spacing_mm = tuple(records.spacing_mm_BA[0].tolist())
        known = bool(np.isfinite(spacing_mm).all())
        label = records.label_BL[0]
        unlabelled = not label.size or bool(np.isnan(label).any() if label.dtype.kind == "f" else (label < 0).any())
        attributes = {name: float(values[0]) for name, values in records.attributes.items()}
        key = records.key_B[0].decode()
        return Sample(
            key=key if copy == 0 else f"{key}-view-{copy}",
            images={self._image: Image(pixels, Modality(int(records.modality_B[0])), spacing_mm if known else ())},
            organ=Organ(int(records.organ_B[0])),
            subject=records.subject_B[0].decode(),
            split=split,
            label=None if unlabelled else label,
            task=Task(int(records.task_B[0])),
            attributes={name: value for name, value in attributes.items() if np.isfinite(value)},
        )

    def _view(self, records: Records, row: int, copy: int) -> np.ndarray:
        keys_B = sample_keys(self._seed, copy, 0, torch.tensor([row]), 0)
        pixels = records.stacked
        low, high = value_range(pixels, self._rule)
        if not high > low:  # one value everywhere: of percentiles and z-scores nothing is left to change
            return pixels[0]
        given = torch.from_numpy(pixels) if self._rule == BYTES else _scaled(pixels, low, high)
        view = self._pipeline(given, keys_B, torch.from_numpy(records.spacing_mm_BA))[0]
        # Views are float32; the units of wider values are not.
        shown = view.numpy() if pixels.dtype == np.uint8 else view.double().numpy()
        return stored_again((shown + 1) * ((high - low) / 2) + low, pixels.dtype)


def _scaled(pixels: np.ndarray, low: float, high: float) -> torch.Tensor:
    """From -1 to 1 between the ends, in float32; what lies beyond takes their value."""
    shares = (pixels.astype(np.float64).clip(low, high) - low) / (high - low)
    return torch.from_numpy((2 * shares - 1).astype(np.float32))


def _card(card: DatasetCard, copies: int, seed: int) -> DatasetCard:
    words = f"{copies} {_WORDS}, seed {seed}"
    note = f"{card.note}; {words}" if card.note else words
    return card.model_copy(update={"title": f"{card.title}, augmented", "official": False, "note": note})
