"""Any number of workers sees the same samples, the same pixels and the same metadata in every global batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream
from data_shards.vocabulary import Modality, Organ, Task
from pretrain.config import PretrainConfig
from pretrain.objectives import Views
from pretrain.view_factory import ViewFactory
from tests.pretrain.runs import document

BATCHES = 25  # More than the two epochs of the two datasets together.


def configuration(*folders: Path, dropout: float = 0.5) -> PretrainConfig:
    content = document(folders[0], Path("unused"))
    content["data"]["datasets"] = [{"path": str(folder)} for folder in folders]
    content["data"]["datasets"][-1]["views"] = {"rotation": {"degrees": 45.0}, "flip": {"vertical": 0.5}}
    content["model"]["metadata_dropout"] = dropout
    return PretrainConfig.model_validate(content)


def shown(config: PretrainConfig, world_size: int) -> list[tuple[torch.Tensor, Views]]:
    """Samples and views of each global batch, the rows of all ranks together."""
    make_views = ViewFactory(config, torch.device("cpu"))
    ranks = []
    for rank in range(world_size):
        datasets = [ShardedDataset(dataset.path, "train") for dataset in config.data.datasets]
        stream = SampleStream(datasets, batch_size=16, seed=config.seed, rank=rank, world_size=world_size, prefetch=0)
        batches = [batch for batch, _ in zip(stream, range(BATCHES), strict=False)]
        ranks.append([(batch, make_views(batch)) for batch in batches])
    together = []
    for parts in zip(*ranks, strict=True):
        assert all(views.rows == parts[0][1].rows and views.total_rows == sum(views.rows) for _, views in parts)
        assert [len(batch.sample_B) for batch, _ in parts] == list(parts[0][1].rows)
        images = tuple(torch.cat([views.images[view] for _, views in parts]) for view in range(2))
        ids = tuple(
            torch.cat(
                [torch.stack([m.organ_B, m.modality_B, m.task_B], 1) for m in (v.metadata[view] for _, v in parts)]
            )
            for view in range(2)
        )
        together.append((torch.cat([batch.sample_B for batch, _ in parts]), images, ids))
    return together


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_workers_share_out_the_same_pixels(shards: Path, colour_shards: Path, world_size: int) -> None:
    config = configuration(shards, colour_shards)
    for one, many in zip(shown(config, 1), shown(config, world_size), strict=True):
        assert torch.equal(one[0], many[0])
        for view in range(2):
            assert torch.equal(one[1][view], many[1][view])
            assert torch.equal(one[2][view], many[2][view])


def test_views_of_an_image_differ_and_so_do_its_epochs(shards: Path) -> None:
    seen: dict[int, set[bytes]] = {}
    for samples, images, _ in shown(configuration(shards), 1):
        for row, sample in enumerate(samples.tolist()):
            seen.setdefault(sample, set()).update(view[row].numpy().tobytes() for view in images)
    assert min(len(pixels) for pixels in seen.values()) >= 4 and max(len(pixels) for pixels in seen.values()) <= 8


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_metadata_are_dropped_each_on_its_own(shards: Path, dropout: float) -> None:
    ids = torch.cat([ids for _, _, pair in shown(configuration(shards, dropout=dropout), 1) for ids in pair])
    kept = ids == torch.tensor([Organ.knee, Modality.mri, Task.self_supervised])
    assert torch.equal(kept, ids != 0), "what is dropped is unknown"
    assert (kept.double().mean(dim=0) - (1 - dropout)).abs().max() < 4.5 * 0.5 / len(ids) ** 0.5
    if dropout == 0.3:
        pairs = [torch.cat(pair, dim=1) != 0 for _, _, pair in shown(configuration(shards, dropout=dropout), 1)]
        both_views = torch.corrcoef(torch.cat(pairs).T.double()).fill_diagonal_(0)
        assert both_views.abs().max() < 4.5 / sum(map(len, pairs)) ** 0.5
