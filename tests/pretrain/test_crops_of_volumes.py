"""A run on crops of volumes: what it is shown, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.intensity import ZScore
from data_shards.reading.cropped import CroppedDataset
from data_shards.support.errors import CheckpointError, ConfigError, DataError
from data_shards.writing.writer import write_dataset
from pretrain.config import PretrainConfig
from pretrain.data import open_datasets, open_stream, views_of
from pretrain.engine import run
from pretrain.preflight import check
from pretrain.view_factory import ViewFactory
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.pretrain.runs import GroupRuntime, Run, document, untimed
from tests.pretrain.test_curriculum import Ranked

pytestmark = pytest.mark.usefixtures("process_group")
STEPS = 6
CROP = {"size": [8, 12, 12], "per_volume": 3}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight volumes of three sizes, all of them above a megabyte and so with checksums of their parts."""
    random = np.random.default_rng(0)
    shapes = [(1, 30, 200, 190), (1, 22, 256, 200), (1, 40, 170, 160)]
    samples = [
        toy_sample(f"v-{place}", pixels=random.integers(0, 256, shapes[place % 3]).astype(np.uint8))
        for place in range(8)
    ]
    folder = tmp_path_factory.mktemp("crops") / "volumes"
    write_dataset(Listed(samples, card()), folder)
    return folder


def config_of(volumes: Path, out: Path, crop: dict[str, Any], **changes: Any) -> PretrainConfig:
    content = document(volumes, out, schedule={"epochs": 100, "max_steps": STEPS}, **changes)
    content["data"] |= {"batch_size": 9, "crop": crop}
    return PretrainConfig.model_validate(content)


def shown(config: PretrainConfig, world_size: int) -> list[tuple[list[int], torch.Tensor]]:
    """Samples, and the first view of them, of every global batch, put together from those of the workers."""
    datasets = open_datasets(config)
    factory = ViewFactory(config, torch.device("cpu"), [each.views for each in views_of(config, datasets)])
    streams = [open_stream(config, datasets, Ranked(rank, world_size)) for rank in range(world_size)]
    found = []
    for batches in zip(*(islice(iter(stream), STEPS) for stream in streams), strict=True):
        views = [factory(batch) for batch in batches]
        samples = [sample for batch in batches for sample in batch.sample_B.tolist()]
        found.append((samples, torch.cat([each.images[0] for each in views])))
    return found


def test_crops_and_their_views_are_the_same_on_any_number_of_workers(volumes: Path, tmp_path: Path) -> None:
    config = config_of(volumes, tmp_path, CROP)
    (dataset,) = open_datasets(config)
    assert isinstance(dataset, CroppedDataset) and len(dataset) == 24 and dataset.image_shape == (1, 8, 12, 12)
    alone = shown(config, 1)
    for start in (0, 3):
        assert sorted(sample for batch in alone[start : start + 3] for sample in batch[0]) == list(range(24))
    for workers in (2, 3):
        for mine, theirs in zip(shown(config, workers), alone, strict=True):
            assert mine[0] == theirs[0] and torch.equal(mine[1], theirs[1])
    other = shown(config_of(volumes, tmp_path, CROP, seed=4), 1)
    assert not any(torch.equal(mine[1], theirs[1]) for mine, theirs in zip(other, alone, strict=True))


def test_a_run_that_was_stopped_goes_on_with_the_crops_that_were_left(volumes: Path, tmp_path: Path) -> None:
    whole, stopped = (config_of(volumes, tmp_path / name, CROP) for name in ("whole", "stopped"))
    assert run(whole, GroupRuntime())
    assert run(stopped, GroupRuntime(stop_after=2)) is None
    with pytest.raises(CheckpointError, match=r"data\.crop\.per_volume: 3 then, 2 now"):
        run(config_of(volumes, tmp_path / "stopped", {**CROP, "per_volume": 2}), GroupRuntime(), resume=True)
    assert run(stopped, GroupRuntime(), resume=True)
    files = [config.out / "bundle" / "model.safetensors" for config in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert untimed(Run(stopped.out, stopped.out).metrics()) == untimed(Run(whole.out, whole.out).metrics())
    provenance = json.loads((whole.out / "bundle" / "provenance.json").read_text())
    assert provenance["datasets"][0]["samples"] == 8  # volumes, not crops
    assert provenance["config"]["data"]["crop"]["size"] == [8, 12, 12]


def test_planes_of_a_mixture_are_shown_whole(volumes: Path, shards: Path, tmp_path: Path) -> None:
    config = config_of(volumes, tmp_path, {"size": 8})
    both = config.data.model_copy(update={"datasets": [*config.data.datasets, *_listed(shards)]})
    cropped, planes = open_datasets(config.model_copy(update={"data": both}))
    assert cropped.image_shape == (1, 8, 8, 8) and planes.image_shape == (1, 28, 28)


def test_crops_of_planes_alone_are_refused_by_name(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        check(config_of(shards, tmp_path / "out", {"size": 8}), 1, resume=False)
    assert str(refused.value) == (
        f"data.crop: crops are of volumes, and there are planes alone: {shards}; leave it out"
    )
    assert not (tmp_path / "out").exists()


def test_crops_about_the_foreground_are_those_of_the_rule_of_the_dataset(volumes: Path, tmp_path: Path) -> None:
    config = config_of(volumes, tmp_path, {**CROP, "foreground": 1.0})
    config.data.datasets[0] = config.data.datasets[0].model_copy(update={"intensity": ZScore(foreground=254.5)})
    (dataset,) = open_datasets(config)
    (plain,) = open_datasets(config_of(volumes, tmp_path, CROP))
    found, anywhere = (each.read(np.arange(24)).stacked for each in (dataset, plain))
    assert (found == 255).any(axis=(1, 2, 3, 4)).all()
    middle = [(each[:, 0, 4, 6, 6] == 255).mean() for each in (found, anywhere)]
    assert middle[0] > 0.5 and middle[1] < 0.2  # but for those that would reach beyond the volume


def test_a_crop_that_is_larger_than_a_volume_is_refused_before_the_run(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        check(config_of(volumes, tmp_path / "out", {"size": [24, 24, 24]}), 1, resume=False)
    assert str(refused.value) == (
        f"{volumes}: sample v-1: a crop of 24 x 24 x 24 is larger than a volume of 22 x 256 x 200 voxels; make it "
        "smaller, or let such volumes be padded (smaller: pad)"
    )
    assert not (tmp_path / "out").exists()
    check(config_of(volumes, tmp_path / "out", {"size": 24, "smaller": "pad"}), 1, resume=False)
    for crop, message in (
        ({"size": 0}, "greater than 0"),
        ({"size": []}, "expected a number, or one for each axis"),
        ({"size": [8, 8, 8, 8]}, "4 numbers; expected one, or one for each of the axes D,H,W"),
        ({"size": 8, "smaller": "stretch"}, "'refuse' or 'pad'"),
        ({"size": 8, "foreground": 33}, "less than or equal to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of(volumes, tmp_path / "out", crop)


def _listed(shards: Path) -> list[Any]:
    return PretrainConfig.model_validate(document(shards, Path("unused"))).data.datasets
