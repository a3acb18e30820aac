"""Augmented copies in shards: the views of pretraining, with labels and subjects, in the training split alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.format.manifest import read_manifest
from data_shards.inspect.verify import verify
from data_shards.reading.reader import ShardedDataset
from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import ConfigError
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.offline import Augmented
from pretrain.views.policy import under_policy
from pretrain.views.random import sample_keys

ALONE = ("--workers", "1")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fewer phantoms than elsewhere: each is drawn several times here."""
    folder = tmp_path_factory.mktemp("few") / "knee"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=36, images_per_subject=1), folder)
    return folder


def test_copies_are_the_views_of_later_epochs_and_keep_what_is_known_of_the_image(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "augmented"
    assert main(["shards", "augment", str(shards), "--copies", "2", "--seed", "5", *ALONE, "--out", str(out)]) == 0
    assert verify(out) == []
    before, after = read_manifest(shards), read_manifest(out)
    assert not after.card.official and "2 augmented copies of each training image, seed 5" in after.card.note
    for split in ("val", "test"):
        plain, copied = ShardedDataset(shards, split), ShardedDataset(out, split)
        rows = np.arange(len(plain))
        np.testing.assert_array_equal(plain.read(rows).stacked, copied.read(np.arange(len(copied))).stacked)
    assert after.splits["train"].subjects == before.splits["train"].subjects
    plain, copied = ShardedDataset(shards, "train"), ShardedDataset(out, "train")
    assert len(copied) == 3 * len(plain)
    given, found = plain.read(np.arange(len(plain))), copied.read(np.arange(len(copied)))
    for name in ("label_BL", "organ_B", "modality_B", "subject_B", "spacing_mm_BA"):
        np.testing.assert_array_equal(np.repeat(getattr(given, name), 3, axis=0), getattr(found, name))
    assert [key.decode().partition("-view-")[2] for key in found.key_B[:4]] == ["", "1", "2", ""]
    np.testing.assert_array_equal(found.stacked[::3], given.stacked)
    views = under_policy(ViewConfig(), ["knee"], ["mri"], plain.image_shape).views
    spacing = torch.from_numpy(given.spacing_mm_BA)
    for copy in (1, 2):
        keys = sample_keys(5, copy, 0, torch.arange(len(plain)), 0)
        expected = Pipeline(views)(torch.from_numpy(given.stacked), keys, spacing)
        bytes_ = ((expected + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        np.testing.assert_array_equal(found.stacked[copy::3], bytes_)


def test_the_same_call_writes_the_same_bytes_with_any_number_of_processes(shards: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        words = ["shards", "augment", str(shards), "elastic.strength=0.3", "--workers", workers]
        assert main([*words, "--out", str(tmp_path / workers)]) == 0
    first, second = (read_manifest(tmp_path / workers) for workers in ("1", "2"))
    assert first.digest == second.digest


def test_volumes_are_augmented_as_volumes(solid_shards: Path) -> None:
    source = Augmented(solid_shards, ViewConfig(), copies=1)
    image, view = source.sample(0).images["image"], source.sample(1).images["image"]
    assert image.pixels.shape == view.pixels.shape and image.spacing_mm == view.spacing_mm
    assert not np.array_equal(image.pixels, view.pixels)


def test_what_cannot_be_augmented_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="copies: expected a number above 0, found 0"):
        Augmented(shards, ViewConfig(), copies=0)
    none = ViewConfig.model_validate(dict.fromkeys(ViewConfig().transforms))
    with pytest.raises(ConfigError, match="no transform is left that changes such images"):
        Augmented(shards, none, copies=1)
    with pytest.raises(ConfigError, match="solarise: never"):
        Augmented(shards, ViewConfig.model_validate({"solarise": {}}), copies=1)
    with pytest.raises(ConfigError, match="are for pretraining"):
        Augmented(shards, ViewConfig.model_validate({"coarser": [1, 2]}), copies=1)
    held = (shards / "manifest.json").read_bytes()
    for out in (shards, shards.parent, shards / "copies"):
        assert main(["shards", "augment", str(shards), "--out", str(out), "--overwrite"]) == 2
    assert (shards / "manifest.json").read_bytes() == held
    assert main(["shards", "augment", str(shards), *ALONE, "--out", str(tmp_path / "once")]) == 0
    with pytest.raises(ConfigError, match="it has augmented copies already"):
        Augmented(tmp_path / "once", ViewConfig(), copies=1)
    masked = tmp_path / "masked"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=12, images_per_subject=1, masks=True), masked)
    with pytest.raises(ConfigError, match="the studies have masks"):
        Augmented(masked, ViewConfig(), copies=1)
