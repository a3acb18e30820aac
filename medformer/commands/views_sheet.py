"""The contact sheet of ``medformer views show``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_shards.inspect.contact_sheet import COLUMNS, Block, Line, draw_sheet
from data_shards.intensity import Rule
from data_shards.reading.reader import ShardedDataset
from pretrain.config import PretrainConfig
from pretrain.data import check_dataset, open_datasets, rules_of, views_of
from pretrain.intensity import in_range
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.policy import Ruled
from pretrain.views.random import sample_keys


def draw(config: PretrainConfig, path: Path) -> list[str]:
    """Draw the sheet; what the policy has changed is returned in words.

    Raises:
        ConfigError: the document asks for what the policy forbids, or does not fit the data.
        DataError: shards are missing or damaged.
        MedformerError: the file cannot be written.
    """
    datasets = open_datasets(config)
    for dataset in datasets:
        check_dataset(dataset, config, 1)
    told: list[str] = []
    blocks: list[Block] = []
    found = zip(datasets, views_of(config, datasets), rules_of(config, datasets), strict=True)
    for place, (dataset, ruled, rule) in enumerate(found):
        notes = list(ruled.notes) or ["nothing is changed"]
        if ruled.views.policy is None:
            notes = ["none is asked"]
        told += [f"{dataset.card.name}: policy: {note}" for note in notes]
        blocks.append(
            (_title(dataset), [f"policy: {note}" for note in notes], list(_lines(config, dataset, ruled, rule, place)))
        )
    draw_sheet(blocks, path)
    return told


def _title(dataset: ShardedDataset) -> str:
    words = dataset.manifest.vocabulary
    kinds = ", ".join([*words["organ"], *words["modality"]])
    return f"{dataset.card.title}: {kinds}"


def _lines(config: PretrainConfig, dataset: ShardedDataset, ruled: Ruled, rule: Rule, place: int) -> Iterator[Line]:
    rows = np.unique(np.linspace(0, len(dataset) - 1, COLUMNS).astype(np.int64))
    records = dataset.read(rows)
    images, sample_B = in_range(torch.from_numpy(records.stacked), rule), torch.from_numpy(rows)
    spacing_mm_BA = torch.from_numpy(records.spacing_mm_BA)
    yield f"as they are, by {rule.words}", list(_bytes(images).numpy())
    shape = tuple(images.shape[1:])

    def views(of: ViewConfig, number: int) -> list[np.ndarray]:
        of.check_data(shape)
        shown = Pipeline(of)(images, sample_keys(config.seed, 0, place, sample_B, number), spacing_mm_BA, number)
        return list(_bytes(shown).numpy())

    for each in ruled.views.acting_on(shape):
        parameters = each.config.model_dump()
        if "probability" in parameters:  # so that every image shows it
            parameters["probability"] = 1.0
        alone = ViewConfig.model_validate(
            {**dict.fromkeys(ruled.views.transforms), each.name: parameters, "padding": ruled.views.padding}
        )
        said = ", ".join(f"{name} {value}" for name, value in each.config.model_dump().items())
        yield f"{each.name} alone, applied to every image: {said}", views(alone, 0)
    for number, name in enumerate(("first", "second")):
        yield f"{name} view of epoch 0", views(ruled.views, number)


def _bytes(view: Tensor) -> Tensor:
    return ((view + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
