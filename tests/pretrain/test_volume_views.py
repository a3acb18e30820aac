"""Augmentation of volumes: one function of volume and key, against scipy, closed forms and the planes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from pretrain.backbone import normalise
from pretrain.views import ViewConfig, augment, geometry, volumes
from pretrain.views.config import IDENTITY
from pretrain.views.counter_rng import sample_keys, uniforms
from pretrain.views.intensity import adjust_intensity, blur
from pretrain.views.volumes import resample_volumes, volume_maps
from tests.pretrain.test_views import STILL, intensity_draws

STRONG = ViewConfig(rotation_deg=30, tilt_deg=20, translation=0.1, flip_vertical=0.5, flip_depth=0.5, blur=0.5)
UNMOVED = {**STILL, "tilt_deg": 0.0}


def solids(rows: int, channels: int = 1, *size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, channels, *(size or (9, 14, 12))), generator=generator, dtype=torch.uint8)


def keys(rows: int) -> np.ndarray:
    return sample_keys(0, 0, 0, np.arange(rows), 0)


def draws(**chosen: float) -> np.ndarray:
    """Uniform numbers in the middle, but for those that are named."""
    names = ["area", "aspect", "x", "shift_x", "y", "shift_y", "angle", "mirror_x", "mirror_y"]
    names += ["aspect_z", "z", "shift_z", "tilt_x", "tilt_y", "mirror_z"]
    assert len(names) == geometry.DRAWS + volumes.DRAWS and set(chosen) <= set(names)
    return np.array([[chosen.get(name, 0.5) for name in names]])


def moved(volume: Tensor, u_BK: np.ndarray, **changes: float) -> Tensor:
    config = ViewConfig(**{**UNMOVED, **changes})
    return resample_volumes(volume, volume_maps(u_BK, config, tuple(volume.shape[2:])), "border")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# The slices of the last have more pixels together than torch sums in one thread.
@pytest.mark.parametrize("shape, rows", [((1, 28, 28, 28), 20), ((3, 9, 31, 20), 20), ((1, 3, 190, 180), 5)])
@pytest.mark.parametrize("view, sliced", [(0, False), (1, False), (1, True)])
def test_voxels_do_not_depend_on_the_batch(
    shape: tuple[int, ...], rows: int, threads: int, view: int, sliced: bool
) -> None:
    images, own = solids(rows, *shape), keys(rows)
    spacing_mm = torch.rand(rows, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    spacing_mm[::3] = math.nan
    config = STRONG.model_copy(update={"coarser": (1.0, 1.7), "slices": (False, sliced)})
    together = augment(images, own, config, spacing_mm, view)
    for size in (1, 2, 7):
        starts = [slice(start, start + size) for start in range(0, rows, size)]
        parts = [augment(images[i], own[i], config, spacing_mm[i], view) for i in starts]
        assert torch.equal(torch.cat(parts), together), f"in batches of {size}"
    order = np.random.default_rng(0).permutation(rows)
    assert torch.equal(augment(images[order], own[order], config, spacing_mm[order], view), together[order])


def test_what_only_volumes_have_leaves_the_pixels_of_planes_alone() -> None:
    planes = solids(6, 1, 5, 14, 12)[:, :, 0]
    still = ViewConfig(**{**STRONG.model_dump(), "tilt_deg": 0.0, "flip_depth": 0.0})
    assert torch.equal(augment(planes, keys(6), STRONG), augment(planes, keys(6), still))
    turned = IDENTITY.model_copy(update={"tilt_deg": 10.0, "flip_depth": 0.5})
    assert torch.equal(augment(planes, keys(6), turned), normalise(planes))


@pytest.mark.parametrize("padding", ["border", "reflection"])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_a_volume_that_does_not_change_along_its_depth_gives_in_every_slice_what_the_slice_gives(
    depth: int, padding: str
) -> None:
    """Crop, rotation, shift, mirror, intensity and blur are the slice's own; only noise is not."""
    within = {**STRONG.model_dump(), "tilt_deg": 0.0, "noise": 0.0, "padding": padding}
    planes = solids(40, 3, 1, 20, 14)[:, :, 0]
    expected = augment(planes, keys(40), ViewConfig(**within))
    found = augment(planes[:, :, None].expand(-1, -1, depth, -1, -1), keys(40), ViewConfig(**within))
    torch.testing.assert_close(found, expected[:, :, None].expand_as(found), atol=2e-5, rtol=0)


def test_volumes_left_alone_are_normalised_and_nothing_else() -> None:
    assert torch.equal(augment(solids(4, 2), keys(4), IDENTITY), normalise(solids(4, 2)))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(9, 14, 12), (1, 12, 10), (2, 1, 30), (40, 3, 5)])
def test_views_are_of_the_volumes_size_and_in_range(channels: int, size: tuple[int, ...]) -> None:
    wild = ViewConfig(rotation_deg=180, tilt_deg=180, translation=0.5, contrast=0.9, noise=1, blur=1, intensity=1)
    views = augment(solids(6, channels, *size), keys(6), wild)
    assert views.shape == (6, channels, *size) and views.dtype == torch.float32
    assert views.min() >= -1 and views.max() <= 1 and views.isfinite().all()


@pytest.mark.parametrize("padding, theirs", [("border", "nearest"), ("reflection", "reflect")])
def test_resampling_equals_scipys(padding: str, theirs: str) -> None:
    volume = torch.rand(3, 1, 8, 11, 14, generator=torch.Generator().manual_seed(2))
    config = ViewConfig(rotation_deg=40, tilt_deg=40, translation=0.2, flip_depth=0.5)
    maps = volume_maps(uniforms(keys(3), 15), config, (8, 11, 14))
    found = resample_volumes(volume, maps, padding)
    size = np.array([8, 11, 14])
    for row in range(3):
        # From normalised x, y, z to voxels d, h, w, whose centre is at (size - 1) / 2.
        normalised = maps[row].double().numpy()[::-1]
        matrix = normalised[:, 2::-1] * (size[:, None] / size[None])
        offset = normalised[:, 3] * size / 2 + (size - 1) / 2 - matrix @ ((size - 1) / 2)
        expected = scipy.ndimage.affine_transform(volume[row, 0].numpy(), matrix, offset, order=1, mode=theirs)
        np.testing.assert_allclose(found[row, 0].numpy(), expected, atol=2e-5)


def test_the_maps_are_those_that_torch_reads() -> None:
    volume = torch.rand(4, 2, 5, 9, 6, generator=torch.Generator().manual_seed(3))
    maps = volume_maps(uniforms(keys(4), 15), STRONG, (5, 9, 6))
    grid = torch.nn.functional.affine_grid(maps, list(volume.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(resample_volumes(volume, maps, "border"), expected, atol=1e-5, rtol=0)


def test_mirrors_flip_one_axis_each() -> None:
    volume = torch.rand(1, 2, 6, 8, 10, generator=torch.Generator().manual_seed(4))
    for name, axis in (("flip_depth", "z"), ("flip_vertical", "y"), ("flip_horizontal", "x")):
        found = moved(volume, draws(**{f"mirror_{axis}": 0.3}), **{name: 0.4})
        torch.testing.assert_close(found, volume.flip({"z": 2, "y": 3, "x": 4}[axis]), atol=1e-5, rtol=0)
        torch.testing.assert_close(moved(volume, draws(**{f"mirror_{axis}": 0.5}), **{name: 0.4}), volume)


def test_a_tilt_by_a_right_angle_exchanges_the_axes() -> None:
    volume = torch.rand(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(5))
    about_x, about_y = (moved(volume, draws(**{f"tilt_{axis}": 1.0}), tilt_deg=90.0) for axis in "xy")
    torch.testing.assert_close(about_x, volume.transpose(2, 3).flip(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(about_y, volume.transpose(2, 4).flip(2), atol=1e-4, rtol=0)


def test_a_shift_in_depth_is_a_fraction_of_the_depth() -> None:
    volume = torch.rand(1, 1, 20, 6, 6, generator=torch.Generator().manual_seed(6))
    found = moved(volume, draws(shift_z=1.0), translation=0.25)
    torch.testing.assert_close(found[:, :, :15], volume[:, :, 5:], atol=1e-4, rtol=0)


def test_the_depth_is_cropped_as_the_sides_are() -> None:
    config = ViewConfig(**{**UNMOVED, "crop_scale_min": 0.25, "crop_aspect": 2.0})
    maps = volume_maps(draws(area=0.0, z=1.0, aspect_z=1.0), config, (8, 8, 8))[0]
    assert maps[:, :3].diagonal().tolist() == pytest.approx([0.5, 0.5, 1.0])
    maps = volume_maps(draws(area=0.0, z=1.0), config, (8, 8, 8))[0]
    assert maps[2].tolist() == pytest.approx([0.0, 0.0, 0.5, 0.5]), "the last half of the slices"


def test_crops_lie_inside_the_volume() -> None:
    config = ViewConfig(**{**UNMOVED, "crop_scale_min": 0.1, "crop_aspect": 3.0})
    maps = volume_maps(uniforms(keys(5000), 15), config, (5, 28, 40))
    assert (maps[:, :, :3].abs().sum(dim=2) + maps[:, :, 3].abs()).max() <= 1 + 1e-6


@pytest.mark.parametrize("size", [(8, 14, 12), (14, 12)])
def test_pixels_of_a_coarser_view_are_averages(size: tuple[int, ...]) -> None:
    images = solids(4, 2, *size)
    config = IDENTITY.model_copy(update={"coarser": (1.0, 2.0)})
    cells = normalise(images)
    for axis in range(2, images.ndim):
        cells = cells.unflatten(axis, (-1, 2)).mean(dim=axis + 1)
    assert torch.equal(augment(images, keys(4), config, view=0), normalise(images))
    torch.testing.assert_close(augment(images, keys(4), config, view=1), cells, atol=1e-6, rtol=0)
    uneven = augment(images, keys(4), IDENTITY.model_copy(update={"coarser": (1.0, 3.0)}), view=1)
    assert tuple(uneven.shape[2:]) == tuple(math.ceil(length / 3) for length in size)
    flat = torch.full_like(images, 80)
    assert (augment(flat, keys(4), config, view=1) - normalise(flat).mean()).abs().max() < 1e-6


def test_a_coarser_view_is_the_same_place_as_the_finer_one() -> None:
    ramp = torch.linspace(0, 255, 24).round().to(torch.uint8).expand(1, 1, 24, 24, 24).contiguous()
    still = {"intensity": 0.0, "blur": 0.0, "noise": 0.0, "padding": "border"}
    fine = augment(ramp, keys(1), ViewConfig(**still))
    coarse = augment(ramp, keys(1), ViewConfig(**still, coarser=(2.0, 1.0)))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool3d(fine, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 7, 40])
def test_a_slice_is_one_of_the_middle_half_and_all_of_those_are_drawn(depth: int) -> None:
    volumes_BCDHW = solids(400, 2, depth, 3, 4)
    config = IDENTITY.model_copy(update={"slices": (False, True)})
    whole, planes = (augment(volumes_BCDHW, keys(400), config, view=view) for view in (0, 1))
    assert torch.equal(whole, normalise(volumes_BCDHW)) and planes.shape == (400, 2, 3, 4)
    same = (planes[:, :, None] == whole).all(dim=(1, 3, 4))
    assert same.any(dim=1).all(), "each is a slice of its own volume"
    found = same.float().argmax(dim=1)
    assert set(found.tolist()) == set(range(math.floor(depth / 4), math.ceil(depth * 3 / 4)))


def test_a_slice_is_that_of_the_volume_after_it_was_moved_and_made_coarser_as_planes_are() -> None:
    still = {"intensity": 0.0, "blur": 0.0, "noise": 0.0, "tilt_deg": 40.0}
    volume = augment(solids(30), keys(30), ViewConfig(**still))
    planes = augment(solids(30), keys(30), ViewConfig(**still, slices=(True, False)))
    distance = (volume - planes[:, :, None]).abs().amax(dim=(1, 3, 4))
    assert (distance.amin(dim=1) < 1e-6).all()
    coarse = augment(solids(30), keys(30), ViewConfig(**still, slices=(True, False), coarser=(2.0, 1.0)))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(planes, 2), atol=1e-5, rtol=0)


def test_planes_have_no_slices() -> None:
    planes = solids(6, 1, 5, 14, 12)[:, :, 0]
    cut = STRONG.model_copy(update={"slices": (True, True)})
    assert torch.equal(augment(planes, keys(6), cut), augment(planes, keys(6), STRONG))


def test_rotations_are_rigid_in_mm_where_the_spacing_is_known() -> None:
    config = ViewConfig(**{**UNMOVED, "rotation_deg": 60.0, "tilt_deg": 60.0})
    spacing_mm = np.array([[5.0, 0.7, 0.7], [math.nan, 0.7, 0.7]] * 20, dtype=np.float32)
    size = np.array([40, 28, 6])  # width, height, depth
    maps = volume_maps(uniforms(keys(40), 15), config, (6, 28, 40), spacing_mm).double().numpy()[:, :, :3]
    extents = np.where(np.arange(40)[:, None] % 2 == 0, size * np.array([0.7, 0.7, 5.0]), size)
    turned = maps * extents[:, :, None] / extents[:, None]
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (40, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(turned), 1.0, atol=1e-5)
    assert np.abs(turned - np.eye(3)).max(axis=(1, 2)).min() > 0.05


def test_the_intensity_of_a_volume_is_that_of_its_slices_side_by_side() -> None:
    volume = torch.rand(5, 3, 4, 6, 8, generator=torch.Generator().manual_seed(7))
    u_BK = uniforms(keys(5), 9)
    found = adjust_intensity(volume, u_BK, ViewConfig(intensity=1.0))
    expected = adjust_intensity(volume.flatten(2, 3), u_BK, ViewConfig(intensity=1.0))
    torch.testing.assert_close(found.flatten(2, 3), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 14, 16), (2, 14, 9), (1, 8, 8)])
def test_blur_equals_scipys_along_three_axes(size: tuple[int, ...]) -> None:
    volume = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(8))
    config = ViewConfig(blur=1.0, blur_sigma_px=1.6)
    found = blur(volume, intensity_draws(blur=0.0, sigma=(1.2 - 0.1) / 1.5), config)[0].numpy()
    expected = volume[0].double().numpy()
    for axis, length in enumerate(size, start=1):
        radius = min(4, length - 1)
        expected = scipy.ndimage.gaussian_filter1d(expected, 1.2, axis=axis, mode="mirror", radius=radius)
    np.testing.assert_allclose(found, expected, atol=1e-5)
