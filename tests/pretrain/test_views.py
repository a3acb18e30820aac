"""Views of planes: a function of image and key alone, moved as torchvision moves them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv

from pretrain.backbone import normalise
from pretrain.views import Pipeline, ViewConfig, augment
from pretrain.views.config import IDENTITY
from pretrain.views.sampling import frame_of
from pretrain.views.transforms import Draws
from pretrain.views.transforms.crop import Crop
from tests.pretrain.view_samples import STRONG, keys, map_of, moved, noise_images, only

COLOUR = STRONG.changed(stain={})


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


# The largest has more pixels than torch sums in one thread.
@pytest.mark.parametrize("shape, rows", [((1, 28, 28), 20), ((3, 48, 20), 20), ((1, 300, 280), 4)])
@pytest.mark.parametrize("config", [ViewConfig(), STRONG], ids=["default", "all"])
def test_pixels_do_not_depend_on_the_batch(
    shape: tuple[int, int, int], rows: int, threads: int, config: ViewConfig
) -> None:
    if config is STRONG and shape[0] == 3:
        config = COLOUR
    images, own = noise_images(rows, *shape), keys(rows)
    together = augment(images, own, config)
    for size in (1, 3, 7):
        parts = [augment(images[i : i + size], own[i : i + size], config) for i in range(0, rows, size)]
        assert torch.equal(torch.cat(parts), together), f"in batches of {size}"
    order = np.random.default_rng(0).permutation(rows)
    assert torch.equal(augment(images[order], own[order], config), together[order])


def test_images_are_worked_on_in_blocks_and_an_empty_batch_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    images, spacing_mm = noise_images(11, 1, 12, 10), torch.rand(11, 2) + 0.5
    whole = augment(images, keys(11), STRONG, spacing_mm)
    monkeypatch.setattr("pretrain.views.pipeline._BLOCK", 4 * 120)
    assert torch.equal(augment(images, keys(11), STRONG, spacing_mm), whole)
    assert augment(images[:0], keys(11)[:0], STRONG, spacing_mm[:0]).shape == (0, 1, 12, 10)


def test_pixels_belong_to_seed_epoch_dataset_sample_and_view() -> None:
    images = noise_images(1, 1, 28, 28).expand(8, -1, -1, -1)
    first = augment(images, keys(8), STRONG)
    assert torch.equal(augment(images, keys(8), STRONG), first)
    for other in ({"seed": 1}, {"epoch": 1}, {"dataset": 1}, {"view": 1}):
        assert (augment(images, keys(8, **other), STRONG) != first).flatten(1).any(dim=1).all(), other
    assert len({image.numpy().tobytes() for image in first}) == 8, "each sample has numbers of its own"


def test_identity_is_normalisation_and_nothing_else() -> None:
    images = noise_images(4, 3, 28, 28)
    assert torch.equal(augment(images, keys(4), IDENTITY), normalise(images))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(28, 28), (40, 17), (3, 5), (1, 1)])
def test_views_are_of_the_images_size_and_in_range(channels: int, size: tuple[int, int]) -> None:
    wild = STRONG.changed(
        rotation={"degrees": 180}, shift={"fraction": 0.5}, brightness={"strength": 1}, contrast={"strength": 0.9},
        noise={"strength": 1}, rician={"strength": 1}, elastic={"strength": 0.4}, anisotropy={"factor": 16},
    )  # fmt: skip
    views = augment(noise_images(16, channels, *size), keys(16), wild)
    assert views.shape == (16, channels, *size) and views.dtype == torch.float32
    assert views.min() >= -1 and views.max() <= 1 and views.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.int16, torch.float16])
def test_images_that_are_neither_stored_bytes_nor_in_the_range_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"expected uint8 images, found {dtype}"):
        augment(torch.ones((2, 1, 8, 8), dtype=dtype), keys(2), STRONG)


@pytest.mark.parametrize("size", [(28, 28), (24, 40)])
def test_mirrors_equal_torchvisions(size: tuple[int, int]) -> None:
    image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(1))
    for name, theirs, u in (
        ("horizontal", tv.horizontal_flip, (0.3, 0.5, 0.5)),
        ("vertical", tv.vertical_flip, (0.5, 0.3, 0.5)),
    ):
        config = only(flip={"horizontal": 0, "vertical": 0, name: 0.4})
        torch.testing.assert_close(moved(image, config, {"flip": u}), theirs(image), atol=1e-5, rtol=0)
        torch.testing.assert_close(moved(image, config, {"flip": (0.5, 0.5, 0.5)}), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), (24, 40)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])
def test_crop_equals_torchvisions(size: tuple[int, int], place: tuple[float, float]) -> None:
    height, width = size
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(2))
    config = only(crop={"scale": (0.25, 0.25), "aspect": 1})
    found = moved(image, config, {"crop": (0.5, 0.5, *place, 0.5, 0.5)})
    top, left = round(place[1] * height / 2), round(place[0] * width / 2)
    expected = tv.resized_crop(image, top, left, height // 2, width // 2, [height, width], antialias=False)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # Theirs repeats the edge of the crop.
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=0)


@pytest.mark.parametrize("u_aspect, aspect", [(1.0, 2.0), (0.0, 0.5)])
def test_area_and_aspect_of_the_crop(u_aspect: float, aspect: float) -> None:
    config = only(crop={"scale": (0.18, 1.0), "aspect": 2.0})
    maps = map_of(torch.zeros(1, 1, 28, 28), config, {"crop": (0.0, u_aspect, 0.5, 0.5, 0.5, 0.5)})[0]
    assert float(maps[0, 0] * maps[1, 1]) == pytest.approx(0.18, rel=1e-5)
    assert float(maps[0, 0] / maps[1, 1]) == pytest.approx(aspect, rel=1e-5)


@pytest.mark.parametrize("size", [(28, 40), (5, 28, 40)])
def test_crops_lie_inside_the_image_and_are_of_all_sizes(size: tuple[int, ...]) -> None:
    crop, images = Crop(Crop.Config(scale=(0.1, 1.0), aspect=3.0)), torch.zeros(5000, 1, *size)
    u_BK = torch.rand(5000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = crop.maps(Draws(u_BK, keys(5000)), frame_of(images, None))
    reach = maps[:, :, :-1].abs().sum(dim=2) + maps[:, :, -1].abs()
    assert reach.max() <= 1 + 1e-6
    areas = maps[:, 0, 0] * maps[:, 1, 1]
    assert areas.min() < 0.12 and areas.max() > 0.9


@pytest.mark.parametrize("size", [(28, 28), (24, 40)])
@pytest.mark.parametrize("angle_deg", [-90.0, 17.0])
def test_rotation_equals_torchvisions(size: tuple[int, int], angle_deg: float) -> None:
    height, width = size
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(3))
    found = moved(image, only(rotation={"degrees": 90}), {"rotation": (0.5 + angle_deg / 180, 0.5, 0.5)})
    expected = tv.rotate(image, angle_deg, interpolation=tv.InterpolationMode.BILINEAR)
    ys, xs = torch.meshgrid(
        torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij"
    )
    inside = (ys**2 + xs**2).sqrt() < min(height, width) / 2 - 2
    torch.testing.assert_close(found[..., inside], expected[..., inside], atol=1e-3, rtol=0)


def test_shift_is_a_fraction_of_the_side() -> None:
    image = torch.rand(1, 1, 20, 40, generator=torch.Generator().manual_seed(4))
    found = moved(image, only(shift={"fraction": 0.25}), {"shift": (1.0, 0.0, 0.5)})
    torch.testing.assert_close(found[..., 5:, :30], image[..., :-5, 10:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("u, factor", [(1.0, 2.0), (0.0, 0.5)])
def test_scale_magnifies_about_the_centre_as_torchvision_does(u: float, factor: float) -> None:
    image = torch.rand(1, 1, 24, 32, generator=torch.Generator().manual_seed(5))
    found = moved(image, only(scale={"factor": 2}), {"scale": (u,)})
    expected = tv.affine(image, 0, [0, 0], factor, [0, 0], interpolation=tv.InterpolationMode.BILINEAR)
    inside = (slice(None), slice(None), slice(7, -7), slice(9, -9))  # Outside theirs is zero.
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=0)


def test_all_moves_together_are_their_product_in_the_order_that_is_told() -> None:
    image = torch.zeros(1, 1, 20, 30)
    u = {
        "shift": (0.9, 0.2, 0.5), "crop": (0.3, 0.8, 0.1, 0.7, 0.5, 0.5), "scale": (0.9,),
        "rotation": (0.8, 0.5, 0.5), "flip": (0.1, 0.9, 0.5),
    }  # fmt: skip
    config = only(shift={}, crop={}, scale={}, rotation={"degrees": 40}, flip={})
    product = torch.eye(3, dtype=torch.float64)
    for name, numbers in u.items():
        alone = map_of(image, only(**{name: config.transforms[name].model_dump()}), {name: numbers})[0]
        product = product @ torch.cat([alone, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)])
    torch.testing.assert_close(map_of(image, config, u)[0], product[:2])


def test_planes_are_turned_in_mm_where_their_spacing_is_known() -> None:
    images = noise_images(6, 1, 20, 30)
    config = only(rotation={"degrees": 60})
    square, long = torch.full((6, 2), 0.7), torch.tensor([[2.0, 0.5]] * 6)
    pixels = augment(images, keys(6), config)
    assert torch.equal(augment(images, keys(6), config, torch.full((6, 2), torch.nan)), pixels)
    torch.testing.assert_close(augment(images, keys(6), config, square), pixels, atol=1e-4, rtol=0)
    assert (augment(images, keys(6), config, long) - pixels).abs().amax(dim=(1, 2, 3)).min() > 0.05


@pytest.mark.parametrize("name", sorted(STRONG.transforms))
def test_a_transform_more_or_less_leaves_the_numbers_of_the_others_alone(name: str) -> None:
    """What moves alone, or what changes alone, is the same beside any other that acts on nothing of it."""
    images = noise_images(8, 3, 20, 14)
    both = {"noise": {"strength": 0.2}, name: {}} if name != "noise" else {"brightness": {}, "noise": {}}
    other = "noise" if name != "noise" else "brightness"
    alone = Pipeline(only(**{other: both[other]}))
    together = Pipeline(only(**both))
    draws = [each._draws(each.config.acting_on((3, 20, 14)), keys(8))[other] for each in (alone, together)]
    assert torch.equal(draws[0].u_BK, draws[1].u_BK) and torch.equal(draws[0].keys_B, draws[1].keys_B)
    if name in ("crop", "flip", "rotation", "scale", "shift", "elastic"):
        noise = [augment(torch.full_like(images, 128), keys(8), each.config) for each in (alone, together)]
        torch.testing.assert_close(*noise, atol=1e-6, rtol=0)  # of a flat image nothing is seen but the noise


@pytest.mark.parametrize("name, share", [("flip", 0.3), ("blur", 0.6), ("solarise", 0.4), ("elastic", 0.5)])
def test_probabilities_are_kept(name: str, share: float) -> None:
    key = "horizontal" if name == "flip" else "probability"
    config = only(**{name: {key: share}}).changed(padding="border")
    images = noise_images(1, 1, 28, 28).expand(4000, -1, -1, -1)
    changed = augment(images, keys(4000), config) - normalise(images)
    found = float((changed.abs().flatten(1).amax(dim=1) > 0.01).double().mean())
    # Blur by less than a fifth of a pixel changes nothing that can be seen.
    expected = share if name != "blur" else share * float((0.1 + 0.9 * np.linspace(0, 1, 10001) > 0.25).mean())
    assert abs(found - expected) < 0.06
