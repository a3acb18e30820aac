"""Augmentation: a function of image and key alone, against torchvision and closed forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from pretrain.backbone import normalise
from pretrain.views import ViewConfig, augment
from pretrain.views.config import IDENTITY
from pretrain.views.counter_rng import sample_keys, uniforms
from pretrain.views.geometry import affine_maps, resample
from pretrain.views.intensity import add_noise, adjust_intensity, blur

STRONG = ViewConfig(rotation_deg=30, translation=0.1, flip_vertical=0.5, blur=0.5)


def pictures(rows: int, channels: int = 1, height: int = 28, width: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, channels, height, width), generator=generator, dtype=torch.uint8)


def keys(rows: int, *, seed: int = 0, epoch: int = 0, dataset: int = 0, view: int = 0) -> np.ndarray:
    return sample_keys(seed, epoch, dataset, np.arange(rows), view)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# The largest has more pixels than torch sums in one thread.
@pytest.mark.parametrize("shape, rows", [((1, 28, 28), 60), ((3, 28, 28), 60), ((3, 48, 20), 33), ((1, 300, 280), 5)])
def test_pixels_do_not_depend_on_the_batch(shape: tuple[int, int, int], rows: int, threads: int) -> None:
    images, own = pictures(rows, *shape), keys(rows)
    together = augment(images, own, STRONG)
    for size in (1, 2, 7, 32):
        parts = [augment(images[i : i + size], own[i : i + size], STRONG) for i in range(0, rows, size)]
        assert torch.equal(torch.cat(parts), together), f"in batches of {size}"
    order = np.random.default_rng(0).permutation(rows)
    assert torch.equal(augment(images[order], own[order], STRONG), together[order])


def test_pixels_belong_to_seed_epoch_dataset_sample_and_view() -> None:
    images = pictures(1).expand(8, -1, -1, -1)
    first = augment(images, keys(8), STRONG)
    assert torch.equal(augment(images, keys(8), STRONG), first)
    for other in ({"seed": 1}, {"epoch": 1}, {"dataset": 1}, {"view": 1}):
        assert (augment(images, keys(8, **other), STRONG) != first).flatten(1).any(dim=1).all(), other
    assert len({image.numpy().tobytes() for image in first}) == 8, "each sample has numbers of its own"


def test_identity_is_normalisation_and_nothing_else() -> None:
    images = pictures(4, 3)
    assert torch.equal(augment(images, keys(4), IDENTITY), normalise(images))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(28, 28), (40, 17), (3, 5)])
def test_views_are_of_the_images_size_and_in_range(channels: int, size: tuple[int, int]) -> None:
    wild = ViewConfig(rotation_deg=180, translation=0.5, brightness=1, contrast=0.9, noise=1, blur=1, intensity=1)
    views = augment(pictures(16, channels, *size), keys(16), wild)
    assert views.shape == (16, channels, *size) and views.dtype == torch.float32
    assert views.min() >= -1 and views.max() <= 1 and views.isfinite().all()


STILL = {"crop_scale_min": 1.0, "crop_aspect": 1.0, "rotation_deg": 0.0, "flip_horizontal": 0.0, "flip_vertical": 0.0}


def draws(**chosen: float) -> np.ndarray:
    """Uniform numbers in the middle, but for those that are named."""
    names = ["area", "aspect", "x", "shift_x", "y", "shift_y", "angle", "mirror_x", "mirror_y"]
    return np.array([[chosen.get(name, 0.5) for name in names]])


def moved(image: Tensor, u_BK: np.ndarray, padding: str = "border", **changes: float) -> Tensor:
    config = ViewConfig(**{**STILL, **changes})
    return resample(image, affine_maps(u_BK, config, *image.shape[-2:]), padding)


@pytest.mark.parametrize("size", [(28, 28), (24, 40)])
def test_mirrors_equal_torchvisions(size: tuple[int, int]) -> None:
    image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(1))
    for name, theirs, axis in (
        ("flip_horizontal", tv.horizontal_flip, "mirror_x"),
        ("flip_vertical", tv.vertical_flip, "mirror_y"),
    ):
        torch.testing.assert_close(moved(image, draws(**{axis: 0.3}), **{name: 0.4}), theirs(image), atol=1e-5, rtol=0)
        torch.testing.assert_close(moved(image, draws(**{axis: 0.5}), **{name: 0.4}), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), (24, 40)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])
def test_crop_equals_torchvisions(size: tuple[int, int], place: tuple[float, float]) -> None:
    height, width = size
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(2))
    found = moved(image, draws(area=0.0, x=place[0], y=place[1]), crop_scale_min=0.25)
    top, left = round(place[1] * height / 2), round(place[0] * width / 2)
    expected = tv.resized_crop(image, top, left, height // 2, width // 2, [height, width], antialias=False)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # Theirs repeats the edge of the crop.
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=0)


@pytest.mark.parametrize("u_aspect, aspect", [(1.0, 2.0), (0.0, 0.5)])
def test_area_and_aspect_of_the_crop(u_aspect: float, aspect: float) -> None:
    config = ViewConfig(**{**STILL, "crop_scale_min": 0.18, "crop_aspect": 2.0})
    maps = affine_maps(draws(area=0.0, aspect=u_aspect), config, 28, 28)[0]
    assert float(maps[0, 0] * maps[1, 1]) == pytest.approx(0.18, rel=1e-5)
    assert float(maps[0, 0] / maps[1, 1]) == pytest.approx(aspect, rel=1e-5)


def test_crops_lie_inside_the_image() -> None:
    config = ViewConfig(**{**STILL, "crop_scale_min": 0.1, "crop_aspect": 3.0})
    maps = affine_maps(uniforms(keys(5000), 9), config, 28, 40)
    reach = maps[:, :, :2].abs().sum(dim=2) + maps[:, :, 2].abs()
    assert reach.max() <= 1 + 1e-6


@pytest.mark.parametrize("size", [(28, 28), (24, 40)])
@pytest.mark.parametrize("angle_deg", [-90.0, 17.0])
def test_rotation_equals_torchvisions(size: tuple[int, int], angle_deg: float) -> None:
    height, width = size
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(3))
    found = moved(image, draws(angle=0.5 + angle_deg / 180), rotation_deg=90.0)
    expected = tv.rotate(image, angle_deg, interpolation=tv.InterpolationMode.BILINEAR)
    ys, xs = torch.meshgrid(
        torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij"
    )
    inside = (ys**2 + xs**2).sqrt() < min(height, width) / 2 - 2
    torch.testing.assert_close(found[..., inside], expected[..., inside], atol=1e-3, rtol=0)


def test_shift_is_a_fraction_of_the_side() -> None:
    image = torch.rand(1, 1, 20, 40, generator=torch.Generator().manual_seed(4))
    found = moved(image, draws(shift_x=1.0, shift_y=0.0), translation=0.25)
    torch.testing.assert_close(found[..., 5:, :30], image[..., :-5, 10:], atol=1e-4, rtol=0)


def intensity_draws(**chosen: float) -> np.ndarray:
    names = ["chosen", "contrast", "brightness", "gamma", "red", "green", "blue", "blur", "sigma"]
    return np.array([[chosen.get(name, 0.5) for name in names]])


def test_intensity_is_the_closed_form() -> None:
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    config = ViewConfig(intensity=0.5, contrast=0.4, brightness=0.2, gamma=1.0, colour=0.3)
    u = intensity_draws(chosen=0.4, contrast=1.0, brightness=0.0, gamma=1.0, red=1.0, green=0.0)
    shifted = (image - image.mean()) * 1.4 + image.mean() - 0.2
    expected = (shifted * torch.tensor([1.3, 0.7, 1.0])[:, None, None]).clamp(0, 1) ** 2
    torch.testing.assert_close(adjust_intensity(image, u, config), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(adjust_intensity(image, intensity_draws(chosen=0.5), config), image)


@pytest.mark.parametrize("sigma_px", [0.5, 1.3, 2.0])
def test_blur_equals_torchvisions_with_as_many_taps(sigma_px: float) -> None:
    image = torch.rand(1, 2, 30, 24, generator=torch.Generator().manual_seed(6))
    config = ViewConfig(blur=1.0, blur_sigma_px=2.0)
    found = blur(image, intensity_draws(blur=0.0, sigma=(sigma_px - 0.1) / 1.9), config)
    torch.testing.assert_close(found, tv.gaussian_blur(image, [11, 11], [sigma_px] * 2), atol=1e-5, rtol=0)


def test_blur_and_noise_touch_only_the_images_they_are_meant_for() -> None:
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(7))
    u = np.concatenate([intensity_draws(blur=0.9), intensity_draws(blur=0.1)])
    blurred = blur(images, u, ViewConfig(blur=0.5))
    assert torch.equal(blurred[0], images[0]) and not torch.allclose(blurred[1], images[1], atol=1e-2)
    noise = np.ones((2, 144), np.float32)
    noisy = add_noise(images, np.array([0.0, 0.1]), noise)
    assert torch.equal(noisy[0], images[0])
    torch.testing.assert_close(noisy[1], (images[1] + 0.1).clamp(0, 1))


@pytest.mark.parametrize("field, share", [("flip_horizontal", 0.3), ("blur", 0.6)])
def test_probabilities_are_kept(field: str, share: float) -> None:
    nothing = {**IDENTITY.model_dump(), "padding": "border"}
    images = pictures(1).expand(4000, -1, -1, -1)
    changed = augment(images, keys(4000), ViewConfig(**{**nothing, field: share, "blur_sigma_px": 1.0})) - normalise(
        images
    )
    found = float((changed.abs().flatten(1).amax(dim=1) > 0.01).double().mean())
    # Blur by less than a fifth of a pixel changes nothing that can be seen.
    expected = share if field != "blur" else share * float((0.1 + 0.9 * np.linspace(0, 1, 10001) > 0.25).mean())
    assert abs(found - expected) < 0.06
