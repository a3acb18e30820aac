"""Every transform of intensities against an independent implementation or a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
import scipy.stats
import skimage.color
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from pretrain.views.random import uniforms
from pretrain.views.splines import smooth_field
from pretrain.views.transforms import TRANSFORMS, Change, Draws
from pretrain.views.transforms.anisotropy import thick_slices
from pretrain.views.transforms.blur import blurred
from pretrain.views.transforms.colour import turned_hue
from pretrain.views.transforms.stain import STAINS, restained
from pretrain.views.values import image_means
from tests.pretrain.view_samples import drawn, keys, smooth_images

SIZES = [(7, 9), (4, 6, 5)]


def values(rows: int, channels: int, *size: int) -> Tensor:
    return torch.rand(rows, channels, *size, generator=torch.Generator().manual_seed(0))


def changed(images: Tensor, name: str, *u: float, **parameters: object) -> Tensor:
    """Images changed by a transform for chosen uniform numbers, the same for each."""
    made = TRANSFORMS[name](TRANSFORMS[name].Config(**parameters))
    assert isinstance(made, Change)
    return made(images.clone(), drawn(*u, rows=len(images)))  # a transform may overwrite what it is given


@pytest.mark.parametrize("size", SIZES)
def test_contrast_is_about_the_mean_of_the_image(size: tuple[int, ...]) -> None:
    images = values(3, 3, *size)
    mean = images.double().flatten(1).mean(dim=1).view(-1, *[1] * (len(size) + 1))
    expected = (images - mean) * 1.3 + mean
    torch.testing.assert_close(
        changed(images, "contrast", 0.4, 0.75, probability=0.5, strength=0.6).double(), expected, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(changed(images, "contrast", 0.5, 0.75, probability=0.5, strength=0.6), images)
    torch.testing.assert_close(image_means(images).double(), mean.flatten(), atol=1e-6, rtol=0)


def test_contrast_equals_torchvisions_on_grey_images() -> None:
    images = values(2, 1, 8, 9) * 0.5 + 0.25  # Theirs clamps.
    expected = tv.adjust_contrast(images, 1.3)
    torch.testing.assert_close(changed(images, "contrast", 0, 0.75, strength=0.6), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_brightness_is_a_shift(size: tuple[int, ...]) -> None:
    images = values(2, 2, *size)
    torch.testing.assert_close(changed(images, "brightness", 0, 0.0, strength=0.2), images - 0.2)
    assert torch.equal(changed(images, "brightness", 0.9, 0.0), images)


@pytest.mark.parametrize("u, gamma", [(1.0, 2.0), (0.0, 0.5), (0.5, 1.0)])
def test_gamma_is_a_power_of_what_is_clamped(u: float, gamma: float) -> None:
    images = values(2, 3, 8, 9) * 1.4 - 0.2
    expected = images.double().clamp(0, 1) ** gamma
    torch.testing.assert_close(changed(images, "gamma", 0, u, strength=1).double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        changed(images[:, :1].clamp(0, 1), "gamma", 0, u, strength=1),
        tv.adjust_gamma(images[:, :1].clamp(0, 1), gamma), atol=1e-6, rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_colours_have_gains_and_grey_is_left_alone(size: tuple[int, ...]) -> None:
    images, u = values(2, 5, *size), (0.0, 1.0, 0.0, 0.75, 0.9)
    gains = torch.tensor([1.2, 0.8, 1.1, 1.2, 0.8]).view(-1, *[1] * len(size))
    torch.testing.assert_close(changed(images, "colour", *u, strength=0.2), images * gains)
    config = TRANSFORMS["colour"].Config
    assert not config().acts_on((1, *size)) and config().acts_on((2, *size))
    assert not config(strength=0, hue_degrees=10).acts_on((2, *size))
    assert config(strength=0, hue_degrees=10).acts_on((3, *size))


@pytest.mark.parametrize("size", SIZES)
def test_the_hue_is_turned_about_the_greys(size: tuple[int, ...]) -> None:
    from scipy.spatial.transform import Rotation

    images = values(2, 3, *size)
    rotation = Rotation.from_rotvec(-0.7 * np.ones(3) / math.sqrt(3)).as_matrix()
    expected = np.einsum("ij,bj...->bi...", rotation, images.numpy())
    found = turned_hue(images, torch.tensor([0.7, 0.7], dtype=torch.float64))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    third = turned_hue(images, torch.full((2,), 2 * math.pi / 3, dtype=torch.float64))
    torch.testing.assert_close(third, images[:, [1, 2, 0]], atol=1e-6, rtol=0)
    through = changed(images, "colour", 0, 0.5, 0.5, 0.5, 1.0, strength=0, hue_degrees=120)
    torch.testing.assert_close(through, third, atol=1e-6, rtol=0)
    # Pure colours have the hues of HSV.
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    found = turned_hue(blue, torch.tensor([2 * math.pi / 3]))
    torch.testing.assert_close(found, tv.adjust_hue(blue, -1 / 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_stains_equal_scikit_images(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    # Amounts above zero: scikit-image clips those below.
    amounts = torch.rand(1, 3, *size, generator=generator).double() * 0.3 + 0.1
    mixing = torch.tensor(STAINS, dtype=torch.float64)
    images = torch.exp(-math.log(10) * torch.einsum("bs...,sc->bc...", amounts, mixing)).float()
    alpha, beta = torch.tensor([[1.2, 0.9, 1.05]]).double(), torch.tensor([[0.02, -0.03, 0.01]]).double()
    found = restained(images.clone(), alpha, beta)
    # Theirs measures by log 1e-6, which is 6 in log10.
    theirs = skimage.color.rgb2hed(images[0].double().numpy(), channel_axis=0)
    np.testing.assert_allclose(theirs * 6, amounts[0], atol=1e-5)
    per_stain = [np.reshape(each[0].numpy(), (3, *[1] * len(size))) for each in (alpha, beta)]
    expected = skimage.color.hed2rgb(theirs * per_stain[0] + per_stain[1] / 6, channel_axis=0)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    whole = torch.rand(2, 3, *size, generator=generator).clamp(1 / 255, 1)
    torch.testing.assert_close(changed(whole, "stain", 0, *[0.5] * 6), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(changed(whole, "stain", 0.9, *[1.0] * 6), whole, atol=1e-5, rtol=0)
    assert changed(torch.zeros(1, 3, 4, 4), "stain", 0, *[1.0] * 6).isfinite().all()


@pytest.mark.parametrize("size", SIZES)
def test_solarisation_equals_torchvisions(size: tuple[int, ...]) -> None:
    images = values(2, 3, *size)
    expected = tv.solarize(images.flatten(2, -2), 0.3).view_as(images)
    assert torch.equal(changed(images, "solarise", 0.1, threshold=0.3), expected)
    assert torch.equal(changed(images, "solarise", 0.2, threshold=0.3), images)


@pytest.mark.parametrize("sigma_px", [0.5, 1.3, 2.0])
def test_blur_equals_torchvisions_with_as_many_taps(sigma_px: float) -> None:
    images = values(2, 2, 30, 24)
    found = changed(images, "blur", 0.0, (sigma_px - 0.1) / 1.9, probability=1, sigma_px=2.0)
    torch.testing.assert_close(found, tv.gaussian_blur(images, [11, 11], [sigma_px] * 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(12, 14, 16), (2, 14, 9), (1, 8, 8), (30, 24)])
def test_blur_equals_scipys_along_every_axis(size: tuple[int, ...]) -> None:
    images, sigma_px = values(2, 2, *size), torch.tensor([1.2, 0.4], dtype=torch.float64)
    found = blurred(images, sigma_px, 4)
    for row, sigma in enumerate(sigma_px.tolist()):
        expected = images[row].double().numpy()
        for axis, length in enumerate(size, start=1):
            radius = min(4, length - 1)
            expected = scipy.ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_images_that_are_not_chosen_are_left_as_they_are() -> None:
    images = values(2, 1, 12, 12)
    u = torch.tensor([[0.9, 0.5], [0.1, 0.5]], dtype=torch.float64)
    for name in ("blur", "noise", "rician"):
        made = TRANSFORMS[name](TRANSFORMS[name].Config(probability=0.5))
        found = made(images.clone(), Draws(u, keys(2)))
        torch.testing.assert_close(found[0], images[0], atol=1e-7, rtol=0)
        assert not torch.allclose(found[1], images[1], atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 60, 70), (2, 14, 15, 16)])
def test_gaussian_noise_is_normal_of_the_drawn_strength(shape: tuple[int, ...]) -> None:
    images = torch.full((3, *shape), 0.5)
    noise = (changed(images, "noise", 0, 0.6, strength=0.1) - images).double().numpy().reshape(3, -1)
    for row in noise:
        assert scipy.stats.kstest(row / 0.06, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 4.5 / math.sqrt(noise.shape[1])


@pytest.mark.parametrize("signal", [0.0, 0.03, 0.5])
def test_rician_noise_has_rices_distribution(signal: float) -> None:
    images = torch.full((4, 1, 64, 64), signal)
    found = changed(images, "rician", 0, 0.8, strength=0.05).double().numpy().ravel()
    law = scipy.stats.rice(signal / 0.04, scale=0.04)
    assert scipy.stats.kstest(found, law.cdf).pvalue > 1e-4
    assert abs(found.mean() - law.mean()) < 4.5 * law.std() / math.sqrt(found.size)
    if not signal:  # Rayleigh's
        assert found.mean() == pytest.approx(0.04 * math.sqrt(math.pi / 2), rel=0.02)


@pytest.mark.parametrize("size", [(9, 14), (5, 9, 7)])
def test_smooth_fields_are_scipys_b_splines_and_stay_between_their_control_points(size: tuple[int, ...]) -> None:
    intervals = 3
    points = torch.rand(2, 2, *[intervals + 3] * len(size), generator=torch.Generator().manual_seed(0))
    expected = points.double().numpy()
    knots = np.arange(-3, intervals + 4)
    for axis, length in enumerate(size, start=2):
        at = (np.arange(length) + 0.5) * intervals / length
        basis = scipy.interpolate.BSpline.design_matrix(at, knots, 3).toarray()
        expected = np.moveaxis(np.tensordot(expected, basis, axes=(axis, 1)), -1, axis)
    found = smooth_field(points, size, intervals)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.min() >= points.min() and found.max() <= points.max()


@pytest.mark.parametrize("size", SIZES)
def test_the_bias_field_is_the_exponential_of_a_smooth_field(size: tuple[int, ...]) -> None:
    images = values(3, 2, *size)
    found = changed(images, "bias_field", 0, strength=0.4, intervals=2)
    points = 2 * uniforms(keys(3), 5 ** len(size)).view(3, 1, *[5] * len(size)) - 1
    torch.testing.assert_close(found, images * (0.4 * smooth_field(points, size, 2)).exp(), atol=1e-6, rtol=1e-5)
    logs = (found / images).log()
    assert logs.abs().max() <= 0.4 + 1e-5 and logs.std() > 0.02
    torch.testing.assert_close(logs[:, 0], logs[:, 1], atol=1e-5, rtol=0)
    assert torch.equal(changed(images, "bias_field", 0.5), images)


def sliced(line: np.ndarray, thickness: float) -> np.ndarray:
    """Thick slices of one line in plain Python: averages by their edges, and linear between their centres."""
    count = math.ceil(len(line) / thickness)
    averages = []
    for number in range(count):
        total, begin, end = 0.0, number * thickness, (number + 1) * thickness
        for pixel in range(math.floor(begin), math.ceil(end)):
            share = min(end, pixel + 1) - max(begin, pixel)
            total += share * line[min(pixel, len(line) - 1)]
        averages.append(total / thickness)
    centres = (np.arange(count) + 0.5) * thickness
    return np.interp(np.arange(len(line)) + 0.5, centres, averages)


@pytest.mark.parametrize("axis", [2, 3, 4])
@pytest.mark.parametrize("thickness", [1.0, 2.0, 2.7, 5.0, 30.0])
def test_thick_slices_are_averages_with_lines_between(axis: int, thickness: float) -> None:
    images = values(2, 1, 6, 8, 10)
    found = thick_slices(images, torch.tensor([thickness, 1.5], dtype=torch.float64), axis)
    for row, thick in enumerate((thickness, 1.5)):
        expected = np.apply_along_axis(sliced, axis - 1, images[row].double().numpy(), thick)
        np.testing.assert_allclose(found[row], expected, atol=2e-6)


def test_one_axis_of_each_image_loses_resolution_and_all_axes_have_their_turn() -> None:
    images = values(1, 1, 12, 12, 12).expand(300, -1, -1, -1, -1)
    anisotropy = TRANSFORMS["anisotropy"]
    u = torch.rand(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = anisotropy(anisotropy.Config(probability=0.7, factor=3))(images, Draws(u, keys(300)))
    chosen = u[:, 0] < 0.7
    assert torch.equal(found[~chosen], images[~chosen])
    rough = torch.stack([found.diff(dim=axis).square().mean(dim=(1, 2, 3, 4)) for axis in (2, 3, 4)], dim=1)
    smoothest = rough.argmin(dim=1)
    clear = chosen & (u[:, 1] > 0.3)
    assert torch.equal(smoothest[clear], (3 * u[clear, 2]).long())
    depth = anisotropy(anisotropy.Config(probability=1, factor=3, axis="depth"))(images, Draws(u, keys(300)))
    rough = torch.stack([depth.diff(dim=axis).square().mean(dim=(1, 2, 3, 4)) for axis in (2, 3, 4)], dim=1)
    assert (rough.argmin(dim=1)[u[:, 1] > 0.3] == 0).all()
    assert not anisotropy.Config(axis="depth").acts_on((1, 8, 8)) and anisotropy.Config().acts_on((1, 8, 8))


def test_the_order_of_the_transforms_is_that_of_the_documents() -> None:
    order = sorted((each for each in TRANSFORMS.values() if issubclass(each, Change)), key=lambda each: each.order)
    assert [each.name for each in order] == [
        "anisotropy", "stain", "bias_field", "contrast", "brightness", "colour", "gamma", "solarise", "blur", "noise",
        "rician",
    ]  # fmt: skip
    images = smooth_images(2, 1, 8, 8)
    assert torch.allclose(changed(images, "gamma", 0, 0.5), images, atol=1e-6)
