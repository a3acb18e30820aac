"""Rules applied to batches, against nibabel and numpy; and what views and bundles make of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from torch import Tensor

from data_shards.format.manifest import read_manifest
from data_shards.intensity import BYTES, Percentiles, Window, Windows, ZScore
from data_shards.prepare import Ruled
from data_shards.reading.reader import ShardedDataset
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.source import Images
from data_shards.support.errors import CheckpointError, DataError
from data_shards.writing.writer import write_dataset
from pretrain.backbone import normalise
from pretrain.bundle import load_bundle, save_bundle
from pretrain.intensity import TrainedOn, difference, in_range
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.random import sample_keys
from tests.finetune.samples import TINY, tiny_backbone

TWO = Windows(windows=(Window.model_validate("lung"), Window.model_validate("mediastinum")))
LUNG, MEDIASTINUM = (-1350.0, 150.0), (-125.0, 225.0)


def windowed(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Independent of ours: between the ends by numpy's own interpolation, to [-1, 1]."""
    return np.interp(values.astype(np.float64), [low, high], [-1.0, 1.0])


def ct_like(path: Path, seed: int = 0, size: tuple[int, int, int] = (20, 24, 18)) -> Path:
    """A NIfTI of int16 Hounsfield units: air of -1024, soft tissue, and bone up to 3000."""
    random = np.random.default_rng(seed)
    values = np.full(size, -1024, np.int16)
    values[3:-3, 3:-3, 2:-2] = random.normal(40, 60, (size[0] - 6, size[1] - 6, size[2] - 4)).astype(np.int16)
    values[5:8, 5:9, 4:8] = random.integers(300, 3001, (3, 4, 4), np.int16)
    values[5, 5, 4], values[0, 0, 0] = 3000, -1024
    image = nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 3.0, 1.0]))
    nibabel.save(image, path)
    return path


def images_of(root: Path, **options: Any) -> Images:
    content = {"root": root, "name": "clinic", "organ": "chest", "modality": "ct", "task": "self_supervised"}
    (source,) = Images.from_config(ImagesConfig.model_validate({**content, **options}))
    assert isinstance(source, Images)
    return source


def test_two_windows_of_a_16_bit_ct_equal_those_of_nibabels_values(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    for number in range(3):
        ct_like(tmp_path / "ct" / f"{number}.nii", number)
    write_dataset(Ruled(images_of(tmp_path / "ct"), {"*": TWO}, "int16"), tmp_path / "shards")
    found = torch.cat([in_range(torch.from_numpy(pixels), TWO) for pixels in stored(tmp_path / "shards")])
    assert found.dtype == torch.float32 and found.shape[:2] == (3, 2)
    truths = []
    for number in range(3):
        volume = nibabel.as_closest_canonical(nibabel.load(tmp_path / "ct" / f"{number}.nii"))
        truths.append(np.asarray(volume.dataobj, np.float64).transpose(2, 1, 0))  # D,H,W
    for shown in found.numpy():
        # The source says which axis runs which way: of the volume each corner and order of axes is tried, none other.
        nearest = min(
            np.abs(shown[0] - windowed(turned, *LUNG)).max() + np.abs(shown[1] - windowed(turned, *MEDIASTINUM)).max()
            for truth in truths
            for turned in turns(truth)
            if turned.shape == shown[0].shape
        )
        assert nearest < 1e-6


def stored(folder: Path) -> list[np.ndarray]:
    """The images of each split."""
    datasets = [ShardedDataset(folder, split) for split in read_manifest(folder).splits]
    return [dataset.read(np.arange(len(dataset))).stacked for dataset in datasets]


def turns(volume: np.ndarray) -> list[np.ndarray]:
    flips = itertools.product(*((slice(None), slice(None, None, -1)) for _ in range(3)))
    return [volume[flip] for flip in flips]


@pytest.mark.parametrize("dtype", ["<u2", "<i2", "<f2", "<f4", "|i1", "<i4", "<f8", "<u4"])
@pytest.mark.parametrize("axes", [2, 3])
def test_windows_of_every_dtype_equal_numpys_interpolation(dtype: str, axes: int) -> None:
    kind = np.dtype(dtype)
    low, high = (0, 100) if kind.kind == "u" else (-120, 120)
    values = np.random.default_rng(0).uniform(low, high, (3, 1, *(9,) * axes)).astype(kind)
    rule = Windows(windows=(Window.model_validate({"low": -50, "high": 30}), Window(center=10.25, width=0.5)))
    found = in_range(torch.from_numpy(values), rule).numpy()
    for channel, window in enumerate(rule.windows):
        np.testing.assert_allclose(found[:, channel], windowed(values[:, 0], window.low, window.high), atol=1e-6)


def test_both_ends_of_a_window_are_reached_exactly() -> None:
    window = Window(center=0.1, width=0.3)
    far = torch.tensor([[-1e9, 1e9]]).reshape(1, 1, 1, 2)
    assert in_range(far, Windows(windows=(window,))).flatten().tolist() == [-1, pytest.approx(1, abs=1e-7)]
    ends = torch.tensor([-1350, 150], dtype=torch.int16).reshape(1, 1, 1, 2)
    assert in_range(ends, TWO)[0, 0].flatten().tolist() == [-1, 1]


def of_numpy(image: np.ndarray, rule: Percentiles | ZScore) -> np.ndarray:
    """Independent of ours, by numpy in float64."""
    values = image.astype(np.float64)
    counted = values.ravel()
    if rule.foreground != "all":
        inside = counted > (counted.mean() if rule.foreground == "mean" else rule.foreground)
        counted = counted[inside] if inside.any() else counted
    if isinstance(rule, Percentiles):
        low, high = np.percentile(counted, [rule.low, rule.high])
        if low == high:
            return np.where(values > high, 1.0, -1.0)
        return windowed(values, low, high)
    if counted.std() == 0:
        return np.zeros_like(values)
    return np.clip((values - counted.mean()) / counted.std(), -rule.limit, rule.limit) / rule.limit


RULES = [
    Percentiles(),
    Percentiles(low=0, high=100),
    Percentiles(low=3, high=77.7, foreground="mean"),
    Percentiles(foreground=12.5),
    ZScore(),
    ZScore(foreground="all", limit=2.5),
    ZScore(foreground=1e9),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.words)
@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i2", "<f2", "<f4", "<i4"])
def test_rules_of_each_image_equal_numpys(rule: Percentiles | ZScore, dtype: str) -> None:
    random = np.random.default_rng(1)
    images = [random.gamma(2, scale, (2, 5, 6, 7)) for scale in (10, 15)] + [np.full((2, 5, 6, 7), 7.0)]
    batch = np.stack(images).astype(dtype)
    found = in_range(torch.from_numpy(batch), rule).numpy()
    for mine, image in zip(found, batch, strict=True):
        np.testing.assert_allclose(mine, of_numpy(image, rule), atol=1e-6)
    alone = in_range(torch.from_numpy(batch[1:2]), rule).numpy()
    assert np.array_equal(alone[0], found[1]) and np.abs(found).max() <= 1


@pytest.mark.parametrize("rule", RULES[:1] + RULES[4:5], ids=lambda rule: rule.words)
def test_rules_of_each_image_equal_numpys_on_real_volumes(rule: Percentiles | ZScore, shared_data: Path) -> None:
    paths = [path for path in sorted((shared_data / "nifti").glob("*.nii*")) if nibabel.load(path).ndim == 3]
    assert len(paths) >= 3
    for path in paths:
        values = np.asarray(nibabel.load(path).dataobj)
        values = values.astype(values.dtype.newbyteorder("="))[None, None]
        found = in_range(torch.from_numpy(values), rule)
        np.testing.assert_allclose(found[0, 0].numpy(), of_numpy(values[0, 0], rule), atol=2e-6, err_msg=path.name)


def test_a_dicom_series_keeps_the_values_of_pydicom_and_comes_by_its_rule(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "dicom_mr_series"
    slices = [pydicom.dcmread(path).pixel_array for path in sorted(folder.glob("*.dcm"))]
    truth = np.stack(slices).astype(np.float64)
    rule = ZScore()
    write_dataset(Ruled(images_of(folder, modality="mri", organ="brain"), {"*": rule}, "uint16"), tmp_path / "mr")
    ((image,),) = stored(tmp_path / "mr")
    assert image.dtype == np.uint16 and image.size == truth.size
    assert np.array_equal(np.sort(image, axis=None), np.sort(truth, axis=None))
    shown = in_range(torch.from_numpy(image[None]), rule)[0, 0].numpy()
    np.testing.assert_allclose(np.sort(shown, axis=None), np.sort(of_numpy(truth, rule), axis=None), atol=1e-6)


def test_8_bits_come_as_before_bit_for_bit() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(in_range(images), images.to(torch.float32).div_(127.5).sub_(1.0))
    assert torch.equal(in_range(images, BYTES), normalise(images))
    with pytest.raises(TypeError, match="expected uint8"):
        in_range(images.short())
    with pytest.raises(DataError, match="2 windows become the channels of an image that has one; found 3"):
        in_range(images.expand(1, 3, 16, 16), TWO)


def test_a_constant_image_whose_mean_is_rounded_has_no_spread() -> None:
    images = torch.full((1, 1, 9, 11), 0.1)
    assert float(in_range(images, ZScore()).abs().max()) == 0 == float(in_range(images, ZScore(foreground="all")).max())


def ct_batch(rows: int = 4) -> Tensor:
    values = np.random.default_rng(3).normal(-200, 500, (rows, 1, 12, 12)).clip(-1024, 3000).astype(np.int16)
    return torch.from_numpy(values)


def test_views_act_on_the_range_after_the_rule() -> None:
    shown = in_range(ct_batch(), TWO)
    before = shown.clone()
    keys_B = sample_keys(0, 0, 0, torch.arange(4), 0)
    still = ViewConfig.model_validate(dict.fromkeys(ViewConfig().transforms))
    assert torch.equal(Pipeline(still)(shown, keys_B), shown)
    changed = Pipeline(still.changed(brightness=ViewConfig().transforms["brightness"]))(shown, keys_B)
    assert not torch.equal(changed, shown) and float(changed.abs().max()) <= 1
    assert torch.equal(shown, before)  # nothing is changed in place
    full = Pipeline(ViewConfig(coarser=(1.0, 1.0)))(shown, keys_B)
    alone = Pipeline(ViewConfig(coarser=(1.0, 1.0)))(shown[2:3], keys_B[2:3])
    assert torch.equal(full[2:3], alone) and full.shape == shown.shape


@pytest.mark.gpu
@pytest.mark.parametrize("rule", [TWO, *RULES], ids=lambda rule: rule.words)
def test_a_gpu_gives_what_the_processor_gives(rule: Any) -> None:
    for images in (ct_batch(), ct_batch().float(), ct_batch().clamp(0, 60000).to(torch.uint16)):
        there = in_range(images.cuda(), rule)
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), in_range(images, rule), atol=1e-6, rtol=0)


def trained(modality: str, channels: int, rule: Any) -> TrainedOn:
    return TrainedOn(modality=(modality,), channels=channels, rule=rule)


def test_a_bundle_keeps_its_rules_and_one_of_8_bits_names_none(tmp_path: Path) -> None:
    told = (trained("ct", 2, TWO), trained("mri", 1, ZScore()))
    folder = save_bundle(tmp_path / "ruled", tiny_backbone(), "medformer_nano", TINY, {}, {}, told)
    assert load_bundle(folder).intensity == told
    assert "windows lung -1350 to 150, mediastinum -125 to 225 as 2 channels" in (folder / "README.md").read_text()
    plain = save_bundle(tmp_path / "plain", tiny_backbone(), "medformer_nano", TINY, {}, {})
    same = save_bundle(tmp_path / "same", tiny_backbone(), "medformer_nano", TINY, {}, {}, [trained("ct", 1, BYTES)])
    for name in ("config.json", "README.md"):
        assert (plain / name).read_bytes() == (same / name).read_bytes()
    assert "intensity" not in load_bundle(plain).config
    assert [each.rule for each in load_bundle(plain).intensity] == [BYTES]
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"z-score"', '"z-scores"'))
    with pytest.raises(CheckpointError, match=r"config.json: intensity cannot be read: .*z-scores"):
        load_bundle(folder)


def test_another_rule_than_in_training_is_said_and_channels_that_cannot_fit_are_refused() -> None:
    known = (trained("ct", 2, TWO), trained("mri", 1, ZScore()))
    assert (
        difference(known, "ct", 1, TWO) == difference(known, "mri", 1, ZScore()) == difference((), "ct", 1, TWO) == ""
    )
    said = difference(known, "ct", 1, ZScore())
    assert said.startswith("the model was trained with windows lung") and said.endswith(
        "by z-score of values above the mean, -4 to 4"
    )
    assert difference(known, "xray", 1, ZScore()) == ""  # by one of its rules, and nothing says which
    assert "these images come by 8 bits, 0 to 255" in difference(known, "ct", 1, BYTES)
    three = Windows(windows=(*TWO.windows, Window.model_validate("bone")))
    for stored, rule in ((1, three), (3, BYTES)):
        with pytest.raises(DataError, match="which has 3 channels in place of 2"):
            difference(known, "ct", stored, rule)
