"""Elastic distortion against scipy, and one composed resampling against a chain of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from pretrain.views import Pipeline, augment
from pretrain.views.maps import composed
from pretrain.views.random import uniforms
from pretrain.views.sampling import frame_of, sample, sampling_grid
from pretrain.views.splines import smooth_field
from pretrain.views.transforms import Draws, Move, Warp
from pretrain.views.transforms.elastic import Elastic
from tests.pretrain.view_samples import keys, noise_images, only


@pytest.mark.parametrize("size", [(20, 26), (9, 12, 10)])
def test_elastic_distortion_equals_scipys_resampling(size: tuple[int, ...]) -> None:
    images = noise_images(3, 1, *size)
    config = only(elastic={"probability": 1, "strength": 0.3, "intervals": 3}).changed(padding="border")
    found = (augment(images, keys(3), config) + 1) * 127.5
    elastic = config.acting_on((1, *size))[0]
    draws = Pipeline(config)._draws([elastic], keys(3))["elastic"]
    axes = len(size)
    points = (2 * uniforms(draws.keys_B, axes * 6**axes).view(3, axes, *[6] * axes) - 1) * 0.3 * 2 / 3
    field = smooth_field(points, size, 3).double().numpy()
    pixels = np.stack(np.meshgrid(*[np.arange(length) for length in size], indexing="ij"))
    for row in range(3):
        # Displacements are along x, y, z, in halves of the sides.
        moved = [pixels[axis] + field[row, axes - 1 - axis] * size[axis] / 2 for axis in range(axes)]
        expected = scipy.ndimage.map_coordinates(images[row, 0].double().numpy(), moved, order=1, mode="nearest")
        np.testing.assert_allclose(found[row, 0], expected, atol=5e-3)
        assert np.abs(field[row]).max() <= 0.2 and np.abs(field[row]).std() > 0.01


@pytest.mark.parametrize("axes", [2, 3])
def test_the_strongest_distortion_folds_nothing(axes: int) -> None:
    """The determinant of the Jacobian stays above zero, also where control points are pulled to all sides."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 2, (200 if axes == 2 else 40, axes, *[6] * axes), generator=generator) * 2.0 - 1
    field = smooth_field(points * 0.4 * 2 / 3, (48,) * axes, 3).double()
    step = 2 / 48
    rows = []
    for axis in range(axes):
        slopes = [torch.gradient(field[:, axis], spacing=step, dim=-1 - along)[0] for along in range(axes)]
        rows.append(torch.stack(slopes, dim=-1))
    jacobian = torch.stack(rows, dim=-2) + torch.eye(axes)
    assert torch.linalg.det(jacobian).min() > 0
    assert Elastic.Config.model_fields["strength"].metadata[1].le == 0.4


def waves(places: list[Tensor]) -> Tensor:
    """An image that is known everywhere."""
    total = torch.zeros_like(places[0])
    for number, place in enumerate(places):
        total = total + torch.sin(9 * place + number) + 0.5 * torch.cos(14 * place - 5 * places[0] + number)
    return total


@pytest.mark.parametrize("size", [(48, 48), (24, 28, 26)])
def test_one_composed_resampling_is_nearer_to_the_truth_than_a_chain(
    size: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    config = only(
        crop={"scale": (0.5, 0.9)}, scale={}, rotation={"degrees": 20, "tilt_degrees": 10}, shift={"fraction": 0.03},
        flip={}, elastic={"strength": 0.2},
    )  # fmt: skip
    rows, axes = 8, len(size)
    centres = [(2 * torch.arange(length) + 1) / length - 1 for length in size]
    image = waves(list(reversed(torch.meshgrid(*centres, indexing="ij")))).expand(rows, 1, *size)
    frame, generator = frame_of(image, None), torch.Generator().manual_seed(0)
    acting = config.acting_on((1, *size))
    u = {each.name: torch.rand(rows, each.draws, generator=generator, dtype=torch.float64) for each in acting}
    u["elastic"][:] = 0.1
    draws = {name: Draws(u_BK, keys(rows)) for name, u_BK in u.items()}
    maps = [each.maps(draws[each.name], frame) for each in acting if isinstance(each, Move)]
    (displacement,) = (each.displacement(draws[each.name], frame) for each in acting if isinstance(each, Warp))

    grid = sampling_grid(composed(maps), size, displacement)
    truth = waves(grid)[:, None]
    once = sample(image, grid, "border")
    chain = image
    for each in maps:
        chain = sample(chain, sampling_grid(each, size), "border")
    still = torch.eye(axes, axes + 1, dtype=torch.float64).expand(rows, -1, -1)
    chain = sample(chain, sampling_grid(still, size, displacement), "border")
    # Where no step has looked beyond an edge.
    inside = torch.ones(rows, 1, *size, dtype=torch.bool)
    places = [displacement[:, axis] for axis in range(axes)]
    for axis, at in zip(range(axes), reversed(centres), strict=True):
        places[axis] = places[axis] + at.view(-1, *[1] * axis)
    for each in reversed(maps):
        inside &= torch.stack(places).abs().amax(dim=0)[:, None] < 0.9
        places = [
            sum(row[:, k].view(-1, *[1] * axes) * places[k] for k in range(axes)) + row[:, axes].view(-1, *[1] * axes)
            for row in each.float().unbind(1)
        ]
    inside &= torch.stack(places).abs().amax(dim=0)[:, None] < 0.9
    assert inside.double().mean() > 0.3
    errors = [float((found - truth)[inside].square().mean().sqrt()) for found in (once, chain)]
    with capsys.disabled():
        print(f"\nroot mean square error at {size}: once {errors[0]:.4f}, six times {errors[1]:.4f}")
    assert errors[0] < errors[1] / 3


def test_moves_of_the_view_are_those_of_the_truth_whatever_is_combined() -> None:
    """Through the whole pipeline: a plane that rises evenly stays one under every affine map."""
    ramp = torch.linspace(20, 235, 64).round().to(torch.uint8).expand(6, 1, 64, 64).contiguous()
    config = only(crop={"scale": (0.4, 0.6)}, rotation={"degrees": 15}, flip={"horizontal": 0.5, "vertical": 0.5})
    found = augment(ramp, keys(6), config).double()
    inside = found[:, 0, 8:-8, 8:-8]
    for first, second in itertools.product((1, 2), repeat=2):
        bend = inside.diff(dim=first).diff(dim=second)
        assert bend.abs().max() < 0.03
