"""Views of volumes: one function of volume and key, against scipy, closed forms and the planes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from pretrain.backbone import normalise
from pretrain.views import ViewConfig, augment
from pretrain.views.config import IDENTITY
from pretrain.views.sampling import frame_of, sample, sampling_grid
from pretrain.views.transforms import Draws
from pretrain.views.transforms.rotation import Rotation
from tests.pretrain.test_views import threads
from tests.pretrain.view_samples import STRONG, drawn, keys, map_of, moved, noise_images, only

__all__ = ["threads"]
SIZE = (9, 14, 12)
FREE = only(rotation={"degrees": 40, "tilt_degrees": 40}, shift={"fraction": 0.2}, crop={}, flip={"depth": 0.5})


def maps_of(images: torch.Tensor, config: ViewConfig, spacing_mm: torch.Tensor | None = None) -> torch.Tensor:
    """The composed maps of a batch, by the numbers of each transform for random draws."""
    from pretrain.views.maps import composed

    frame, rows = frame_of(images, spacing_mm), len(images)
    generator = torch.Generator().manual_seed(0)
    u = {
        each.name: torch.rand(rows, 8, generator=generator, dtype=torch.float64)
        for each in config.acting_on(tuple(images.shape[1:]))
    }
    return composed(
        [each.maps(Draws(u[each.name], keys(rows)), frame) for each in config.acting_on(tuple(images.shape[1:]))]
    )


# The slices of the last have more pixels together than torch sums in one thread.
@pytest.mark.parametrize("shape, rows", [((1, 16, 16, 16), 5), ((3, 9, 21, 14), 5), ((1, 3, 190, 180), 2)])
@pytest.mark.parametrize("view, sliced", [(1, False), (1, True)])
@pytest.mark.parametrize("config", [ViewConfig(), STRONG], ids=["default", "all"])
def test_voxels_do_not_depend_on_the_batch(
    shape: tuple[int, ...], rows: int, threads: int, view: int, sliced: bool, config: ViewConfig
) -> None:
    images, own = noise_images(rows, *shape), keys(rows)
    spacing_mm = torch.rand(rows, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    spacing_mm[::3] = math.nan
    config = config.changed(coarser=(1.0, 1.7), slices=(False, sliced))
    together = augment(images, own, config, spacing_mm, view)
    for size in (1, 2):
        starts = [slice(start, start + size) for start in range(0, rows, size)]
        parts = [augment(images[i], own[i], config, spacing_mm[i], view) for i in starts]
        assert torch.equal(torch.cat(parts), together), f"in batches of {size}"
    order = np.random.default_rng(0).permutation(rows)
    assert torch.equal(augment(images[order], own[order], config, spacing_mm[order], view), together[order])


def test_what_only_volumes_have_leaves_the_pixels_of_planes_alone() -> None:
    planes = noise_images(6, 1, 14, 12)
    still = STRONG.changed(rotation={"degrees": 30, "tilt_degrees": 0}, flip={"vertical": 0.5, "depth": 0})
    assert torch.equal(augment(planes, keys(6), STRONG), augment(planes, keys(6), still))
    turned = only(rotation={"degrees": 0, "tilt_degrees": 10}, flip={"horizontal": 0, "depth": 0.5})
    assert torch.equal(augment(planes, keys(6), turned), normalise(planes))


@pytest.mark.parametrize("padding", ["border", "reflection"])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_a_volume_that_does_not_change_along_its_depth_gives_in_every_slice_what_the_slice_gives(
    depth: int, padding: str
) -> None:
    """Crop, rotation, shift, scale, mirror, intensity, stain and blur are the slice's own; only noise is not."""
    within = ViewConfig.model_validate(
        {
            "rotation": {"degrees": 30, "tilt_degrees": 0}, "flip": {"vertical": 0.5, "depth": 0.5}, "noise": None,
            "shift": {}, "scale": {}, "solarise": {}, "stain": {}, "padding": padding,
        }
    )  # fmt: skip
    planes = noise_images(40, 3, 20, 14)
    expected = augment(planes, keys(40), within)
    found = augment(planes[:, :, None].expand(-1, -1, depth, -1, -1), keys(40), within)
    # Solarisation turns a rounding at its threshold into a jump.
    same = (found - expected[:, :, None]).abs() < 2e-5
    assert same.double().mean() > 0.9999


def test_volumes_left_alone_are_normalised_and_nothing_else() -> None:
    images = noise_images(4, 2, *SIZE)
    assert torch.equal(augment(images, keys(4), IDENTITY), normalise(images))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [SIZE, (1, 12, 10), (2, 1, 30), (40, 3, 5)])
def test_views_are_of_the_volumes_size_and_in_range(channels: int, size: tuple[int, ...]) -> None:
    wild = STRONG.changed(
        rotation={"degrees": 180, "tilt_degrees": 180}, shift={"fraction": 0.5}, contrast={"strength": 0.9},
        noise={"strength": 1}, blur={"probability": 1}, anisotropy={"factor": 16}, elastic={"strength": 0.4},
    )  # fmt: skip
    views = augment(noise_images(6, channels, *size), keys(6), wild)
    assert views.shape == (6, channels, *size) and views.dtype == torch.float32
    assert views.min() >= -1 and views.max() <= 1 and views.isfinite().all()


@pytest.mark.parametrize("padding, theirs", [("border", "nearest"), ("reflection", "reflect")])
def test_resampling_equals_scipys(padding: str, theirs: str) -> None:
    volume = torch.rand(3, 1, 8, 11, 14, generator=torch.Generator().manual_seed(2))
    maps = maps_of(volume, FREE)
    found = sample(volume, sampling_grid(maps, (8, 11, 14)), padding)
    size = np.array([8, 11, 14])
    for row in range(3):
        # From normalised x, y, z to voxels d, h, w, whose centre is at (size - 1) / 2.
        normalised = maps[row].numpy()[::-1]
        matrix = normalised[:, 2::-1] * (size[:, None] / size[None])
        offset = normalised[:, 3] * size / 2 + (size - 1) / 2 - matrix @ ((size - 1) / 2)
        expected = scipy.ndimage.affine_transform(volume[row, 0].numpy(), matrix, offset, order=1, mode=theirs)
        np.testing.assert_allclose(found[row, 0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("size", [(5, 9, 6), (9, 6)])
@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_grids_and_mirrors_are_those_of_torch(size: tuple[int, ...], padding: str) -> None:
    images = torch.rand(4, 2, *size, generator=torch.Generator().manual_seed(3))
    maps = maps_of(images, FREE)
    grid = torch.nn.functional.affine_grid(maps.float(), list(images.shape), align_corners=False)
    found = sampling_grid(maps, size)
    torch.testing.assert_close(torch.stack(found, dim=-1), grid, atol=1e-5, rtol=0)
    expected = torch.nn.functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    torch.testing.assert_close(sample(images, found, padding), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(7, 9, 6), (1, 5, 4), (2, 3, 1)])
@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_places_far_outside_and_at_the_edges_are_those_of_torch(size: tuple[int, ...], padding: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, *size, generator=generator)
    places = [torch.randint(-30, 31, (3, *size), generator=generator) / 4 for _ in range(3)]
    expected = torch.nn.functional.grid_sample(
        images, torch.stack(places, dim=-1), padding_mode=padding, align_corners=False
    )
    torch.testing.assert_close(sample(images, places, padding), expected, atol=1e-5, rtol=0)


def test_the_rounding_of_high_planes_is_less_than_a_level_of_8_bits() -> None:
    images = torch.rand(1, 1, 128, 128, 8, generator=torch.Generator().manual_seed(0))
    grid = sampling_grid(maps_of(images, FREE), (128, 128, 8))
    expected = torch.nn.functional.grid_sample(
        images, torch.stack(grid, dim=-1), padding_mode="reflection", align_corners=False
    )
    assert (sample(images, grid, "reflection") - expected).abs().max() < 3e-8 * 128 * 128 * 2 < 1 / 255


def test_mirrors_flip_one_axis_each() -> None:
    volume = torch.rand(1, 2, 6, 8, 10, generator=torch.Generator().manual_seed(4))
    for place, name in enumerate(("horizontal", "vertical", "depth")):
        config = only(flip={"horizontal": 0, name: 0.4})
        u = [0.5, 0.5, 0.5]
        torch.testing.assert_close(moved(volume, config, {"flip": tuple(u)}), volume)
        u[place] = 0.3
        torch.testing.assert_close(moved(volume, config, {"flip": tuple(u)}), volume.flip(4 - place), atol=1e-5, rtol=0)


def test_a_tilt_by_a_right_angle_exchanges_the_axes() -> None:
    volume = torch.rand(1, 1, 7, 7, 7, generator=torch.Generator().manual_seed(5))
    config = only(rotation={"degrees": 0, "tilt_degrees": 90})
    about_x, about_y = (moved(volume, config, {"rotation": u}) for u in ((0.5, 1.0, 0.5), (0.5, 0.5, 1.0)))
    torch.testing.assert_close(about_x, volume.transpose(2, 3).flip(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(about_y, volume.transpose(2, 4).flip(2), atol=1e-4, rtol=0)


def test_a_shift_in_depth_is_a_fraction_of_the_depth() -> None:
    volume = torch.rand(1, 1, 20, 6, 6, generator=torch.Generator().manual_seed(6))
    found = moved(volume, only(shift={"fraction": 0.25}), {"shift": (0.5, 0.5, 1.0)})
    torch.testing.assert_close(found[:, :, :15], volume[:, :, 5:], atol=1e-4, rtol=0)


def test_the_depth_is_cropped_as_the_sides_are() -> None:
    volume, config = torch.zeros(1, 1, 8, 8, 8), only(crop={"scale": (0.25, 1.0), "aspect": 2.0})
    maps = map_of(volume, config, {"crop": (0.0, 0.5, 0.5, 0.5, 1.0, 1.0)})[0]
    assert maps[:, :3].diagonal().tolist() == pytest.approx([0.5, 0.5, 1.0])
    maps = map_of(volume, config, {"crop": (0.0, 0.5, 0.5, 0.5, 0.5, 1.0)})[0]
    assert maps[2].tolist() == pytest.approx([0.0, 0.0, 0.5, 0.5]), "the last half of the slices"


@pytest.mark.parametrize("size", [(8, 14, 12), (14, 12)])
def test_pixels_of_a_coarser_view_are_averages(size: tuple[int, ...]) -> None:
    images = noise_images(4, 2, *size)
    config = IDENTITY.changed(coarser=(1.0, 2.0))
    cells = normalise(images)
    for axis in range(2, images.ndim):
        cells = cells.unflatten(axis, (-1, 2)).mean(dim=axis + 1)
    assert torch.equal(augment(images, keys(4), config, view=0), normalise(images))
    torch.testing.assert_close(augment(images, keys(4), config, view=1), cells, atol=1e-6, rtol=0)
    uneven = augment(images, keys(4), IDENTITY.changed(coarser=(1.0, 3.0)), view=1)
    assert tuple(uneven.shape[2:]) == tuple(math.ceil(length / 3) for length in size)
    flat = torch.full_like(images, 80)
    assert (augment(flat, keys(4), config, view=1) - normalise(flat).mean()).abs().max() < 1e-6


STILL = ViewConfig().moved_only()


def test_a_coarser_view_is_the_same_place_as_the_finer_one() -> None:
    ramp = torch.linspace(0, 255, 24).round().to(torch.uint8).expand(1, 1, 24, 24, 24).contiguous()
    still = STILL.changed(padding="border")
    fine = augment(ramp, keys(1), still)
    coarse = augment(ramp, keys(1), still.changed(coarser=(2.0, 1.0)))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool3d(fine, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 7, 40])
def test_a_slice_is_one_of_the_middle_half_and_all_of_those_are_drawn(depth: int) -> None:
    volumes_BCDHW = noise_images(400, 2, depth, 3, 4)
    config = IDENTITY.changed(slices=(False, True))
    whole, planes = (augment(volumes_BCDHW, keys(400), config, view=view) for view in (0, 1))
    assert torch.equal(whole, normalise(volumes_BCDHW)) and planes.shape == (400, 2, 3, 4)
    same = (planes[:, :, None] == whole).all(dim=(1, 3, 4))
    assert same.any(dim=1).all(), "each is a slice of its own volume"
    found = same.float().argmax(dim=1)
    assert set(found.tolist()) == set(range(math.floor(depth / 4), math.ceil(depth * 3 / 4)))


def test_a_slice_is_that_of_the_volume_after_it_was_moved_and_made_coarser_as_planes_are() -> None:
    still, images = STILL.changed(rotation={"tilt_degrees": 40.0}), noise_images(30, 1, *SIZE)
    volume = augment(images, keys(30), still)
    planes = augment(images, keys(30), still.changed(slices=(True, False)))
    distance = (volume - planes[:, :, None]).abs().amax(dim=(1, 3, 4))
    assert (distance.amin(dim=1) < 1e-6).all()
    coarse = augment(images, keys(30), still.changed(slices=(True, False), coarser=(2.0, 1.0)))
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(planes, 2), atol=1e-5, rtol=0)


def test_planes_have_no_slices() -> None:
    planes = noise_images(6, 1, 14, 12)
    cut = STRONG.changed(slices=(True, True))
    assert torch.equal(augment(planes, keys(6), cut), augment(planes, keys(6), STRONG))


def test_rotations_are_rigid_in_mm_where_the_spacing_is_known() -> None:
    rotation = only(rotation={"degrees": 60.0, "tilt_degrees": 60.0})
    spacing_mm = torch.tensor([[5.0, 0.7, 0.7], [math.nan, 0.7, 0.7]] * 20)
    maps = maps_of(torch.zeros(40, 1, 6, 28, 40), rotation, spacing_mm).numpy()[:, :, :3]
    size = np.array([40, 28, 6])  # width, height, depth
    extents = np.where(np.arange(40)[:, None] % 2 == 0, size * np.array([0.7, 0.7, 5.0]), size)
    turned = maps * extents[:, :, None] / extents[:, None]
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (40, 3, 3)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turned), 1.0, atol=1e-6)
    assert np.abs(turned - np.eye(3)).max(axis=(1, 2)).min() > 0.05


def test_rotations_are_those_of_scipys_euler_angles() -> None:
    from scipy.spatial.transform import Rotation as Theirs

    config = Rotation.Config(degrees=90, tilt_degrees=90)
    map_34 = Rotation(config).maps(drawn(0.7, 0.4, 0.8), frame_of(torch.zeros(1, 1, 9, 9, 9), None))[0]
    angles = [90 * (2 * 0.7 - 1), 90 * (2 * 0.4 - 1), -90 * (2 * 0.8 - 1)]
    np.testing.assert_allclose(map_34[:, :3], Theirs.from_euler("ZXY", angles, degrees=True).as_matrix(), atol=1e-6)
