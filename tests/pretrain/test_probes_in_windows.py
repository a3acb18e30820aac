"""Probes of a network that is trained on crops: larger volumes are read in windows of their size, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.intensity import Percentiles
from data_shards.prepare import Ruled
from data_shards.reading.cropped import Crop
from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Modality, Organ, Task
from data_shards.writing.writer import write_dataset
from pretrain.bundle import load_bundle
from pretrain.config import PretrainConfig, ProbesConfig
from pretrain.engine import run
from pretrain.intensity import in_range
from pretrain.metadata import Metadata
from pretrain.module import create_backbone
from pretrain.probes.probe import Probe, open_probes, probe_all
from pretrain.tiling import SlidingWindows, window_of_crops
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.pretrain.runs import GroupRuntime, Run, document

pytestmark = pytest.mark.usefixtures("process_group")
CROP, WINDOW = (9, 15, 12), (8, 12, 12)
"""What is asked for, and what whole tokens of 4 voxels leave of it."""
SHAPES = [(1, 14, 20, 16), (1, 11, 26, 18), (1, 8, 12, 12)]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve int16 volumes of three sizes and two classes."""
    random = np.random.default_rng(0)
    samples = []
    for place in range(18):
        pixels = random.normal(500 * (place % 2), 300, SHAPES[place % 3]).astype(np.int16)
        split = "train" if place < 12 else "val"
        samples.append(toy_sample(f"v-{place:02d}", split=split, label=place % 2, pixels=pixels))
    folder = tmp_path_factory.mktemp("probed") / "volumes"
    write_dataset(Ruled(Listed(samples, card()), {"*": Percentiles()}), folder)
    return folder


def probes_of(folder: Path, cache: Path, crop: Crop | None) -> list[Probe]:
    config = ProbesConfig.model_validate({"datasets": [{"path": str(folder)}]})
    return open_probes(config, Cache(cache, 1 << 30), crop)


def test_embeddings_are_those_of_windows_and_the_network_is_shown_no_more(volumes: Path, tmp_path: Path) -> None:
    content = document(volumes, tmp_path / "out")
    backbone = create_backbone(PretrainConfig.model_validate(content).model).eval()
    assert window_of_crops(CROP, int(backbone.stride)) == WINDOW and window_of_crops((2, 9, 12), 4) == (4, 8, 12)
    probes = probes_of(volumes, tmp_path, Crop(size=CROP))
    shown: list[tuple[int, ...]] = []
    study = backbone.study

    def noted(images: Any, *arguments: Any, **options: Any) -> Any:
        shown.extend(tuple(each.images.shape) for each in images)
        return study(images, *arguments, **options)

    backbone.study = noted  # type: ignore[method-assign]
    embedded: list[np.ndarray] = []
    found = probe_all(probes, backbone, GroupRuntime(), 16, lambda probe, score_MD: embedded.append(score_MD))
    assert {"probe/toy/knn_auc", "probe/toy/linear_auc"} <= set(found)
    assert shown and all(side <= most for shape in shown for side, most in zip(shape[2:], WINDOW, strict=True))

    dataset, reader = ShardedDataset(volumes, "val"), SlidingWindows(backbone, WINDOW)
    known = Metadata.uniform(1, Organ.brain, Modality.mri, Task.self_supervised)
    expected = []
    for row in range(len(dataset)):
        pixels = in_range(torch.from_numpy(dataset.read(np.array([row])).images[0][None]), Percentiles())
        with torch.no_grad():
            expected.append(reader.features(pixels, known, torch.full((1, 3), 0.7)).embedding_BD.numpy())
    np.testing.assert_allclose(embedded[0], np.concatenate(expected), atol=1e-5)


def test_volumes_that_a_crop_covers_and_planes_are_read_whole(solid_shards: Path, shards: Path, tmp_path: Path) -> None:
    for folder, crop in ((solid_shards, Crop(size=12)), (shards, Crop(size=8)), (solid_shards, None)):
        (probe,) = probes_of(folder, tmp_path, crop)
        assert probe.fit.window is None and probe.score.window is None
    (probe,) = probes_of(solid_shards, tmp_path, Crop(size=(12, 12, 8)))
    assert probe.fit.window == (12, 12, 8) == probe.fit.rows(np.arange(2)).window


def test_without_crops_volumes_of_several_sizes_are_refused_as_before(volumes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="probes: .*expected images C,H,W or C,D,H,W of one size"):
        probes_of(volumes, tmp_path, None)


def test_a_run_on_crops_is_probed_and_its_bundle_says_their_size(volumes: Path, tmp_path: Path) -> None:
    changes = {"objectives": {"simclr": {"hidden": 16, "out": 8}}, "schedule": {"max_steps": 2}}
    content = document(volumes, tmp_path / "out", **changes)
    content["data"] |= {"batch_size": 6, "crop": {"size": [8, 12, 12]}}
    content["probes"] = {"datasets": [{"path": str(volumes)}], "every_steps": 2}
    assert run(PretrainConfig.model_validate(content), GroupRuntime())
    found = Run(tmp_path / "out.yaml", tmp_path / "out").metrics()[-1]
    assert 0 <= found["probe/toy/knn_auc"] <= 1
    assert load_bundle(tmp_path / "out" / "bundle").crop == (8, 12, 12)
