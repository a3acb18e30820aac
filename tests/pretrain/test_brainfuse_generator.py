"""The generator of BrainFuse: what holds whatever its weights, the warp against scipy, and that it learns a motion."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from data_shards.support.errors import ConfigError
from pretrain.brainfuse.fusion import check_parents, fused, mean_fused
from pretrain.brainfuse.generator import Generator, GeneratorConfig
from pretrain.brainfuse.losses import edge_weight, gradients, local_correlation, photometric, registration, smoothness
from pretrain.brainfuse.triples import pairs, slices_at, triples
from pretrain.brainfuse.warp import resized, warp

SIZES = [(2, (20, 28)), (3, (8, 12, 10))]


def drawn(axes: int, *, context: int = 0, channels: int = 1, seed: int = 0) -> Generator:
    """A generator whose weights are anything."""
    torch.manual_seed(seed)
    config = GeneratorConfig(axes=axes, context=context, channels=channels, width=8, depth=1, scales=(2, 1))
    generator = Generator(config).double()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return generator


@pytest.mark.parametrize(("axes", "size"), SIZES)
@pytest.mark.parametrize(("context", "channels"), [(0, 1), (1, 1), (0, 3)])
def test_ends_and_symmetry_hold_for_any_weights(axes: int, size: tuple, context: int, channels: int) -> None:
    generator = drawn(axes, context=context, channels=channels)
    seen = channels * (2 * context + 1)
    a, b = torch.randn(2, 3, seen, *size, dtype=torch.float64)
    middle = slice(context * channels, (context + 1) * channels)
    torch.testing.assert_close(generator(a, b, 0.0).image, a[:, middle])
    torch.testing.assert_close(generator(a, b, 1.0).image, b[:, middle])
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    one, other = generator(a, b, t), generator(b, a, 1 - t)
    torch.testing.assert_close(one.image, other.image)
    torch.testing.assert_close(one.moved_a, other.moved_b)
    torch.testing.assert_close(one.weight_a, 1 - other.weight_a)
    assert (one.image - (a + b)[:, middle] / 2).abs().max() > 0.01


@pytest.mark.parametrize(("axes", "size"), SIZES)
def test_it_begins_as_the_weighted_mean(axes: int, size: tuple) -> None:
    generator = Generator(GeneratorConfig(axes=axes, width=8, scales=(4, 2, 1)))
    a, b = torch.randn(2, 2, 1, *size)
    torch.testing.assert_close(generator(a, b, 0.25).image, 0.75 * a + 0.25 * b)
    parents = torch.randn(4, 2, 1, *size)
    torch.testing.assert_close(fused(generator, parents), mean_fused(parents))


@pytest.mark.parametrize(("axes", "size"), SIZES)
def test_the_warp_is_that_of_scipy(axes: int, size: tuple) -> None:
    generator = np.random.default_rng(0)
    image, flow = generator.normal(size=size), generator.normal(scale=2, size=(axes, *size))
    places = np.stack(np.meshgrid(*(np.arange(length) for length in size), indexing="ij")) + flow
    expected = map_coordinates(image, places, order=1, mode="nearest")
    found = warp(torch.from_numpy(image)[None, None], torch.from_numpy(flow)[None])[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_displacements_of_another_size_lead_to_the_same_places() -> None:
    flow = torch.full((1, 2, 8, 6), 1.5)
    torch.testing.assert_close(
        resized(flow, (16, 6)), torch.stack([torch.full((16, 6), 3.0), torch.full((16, 6), 1.5)])[None]
    )
    assert resized(flow, (8, 6)) is flow


def moving(count: int, seed: int) -> list[torch.Tensor]:
    """Volumes whose slices show a blob that moves by two pixels from each to the next; its brightness differs."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:24, :24]
    found = []
    for _ in range(count):
        start, height = generator.uniform(4, 8), generator.uniform(8, 16)
        slices = [np.exp(-((rows - height) ** 2 + (columns - start - 2 * z) ** 2) / 8) for z in range(7)]
        found.append(torch.tensor(np.stack(slices)[None] * 2 - 1, dtype=torch.float32))
    return found


@pytest.mark.slow
def test_it_learns_a_motion_that_the_mean_cannot_show() -> None:
    torch.manual_seed(0)
    drawing = torch.Generator().manual_seed(0)
    volumes, held_out = moving(8, 0), moving(4, 1)
    generator = Generator(GeneratorConfig(width=16, depth=1, scales=(4, 2, 1)))
    optimizer = torch.optim.AdamW(generator.parameters(), lr=3e-3)
    for _ in range(120):
        given = triples(volumes, 8, (1, 2), drawing)
        found = generator(given.a, given.b, given.t)
        losses = photometric(found, given.target)
        loss = losses["image"] + 0.5 * losses["occlusion"] + 0.01 * smoothness(found.flow_a, given.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    given = triples(held_out, 64, (2,), torch.Generator().manual_seed(1))
    with torch.no_grad():
        error = (generator(given.a, given.b, given.t).image - given.target).square().mean()
    t = given.t.view(-1, 1, 1, 1)
    plain = ((1 - t) * given.a + t * given.b - given.target).square().mean()
    assert error < 0.3 * plain


def test_triples_are_of_one_subject_and_pairs_of_two() -> None:
    # The value of a pixel tells volume and slice.
    volumes = [
        (100.0 * number + torch.arange(depth)).view(1, -1, 1, 1).expand(1, depth, 2, 2).clone()
        for number, depth in enumerate((3, 7, 12))
    ]
    drawing = torch.Generator().manual_seed(0)
    given = triples(volumes, 400, (1, 2, 5), drawing)
    a, b, target = (part[:, 0, 0, 0] for part in (given.a, given.b, given.target))
    assert torch.equal(a.div(100).floor(), b.div(100).floor()) and torch.equal(
        a.div(100).floor(), target.div(100).floor()
    )
    torch.testing.assert_close(target, a + given.t * (b - a))
    assert set(((b - a) / 2).tolist()) == {1.0, 2.0, 5.0} and ((given.t > 0) & (given.t < 1)).all()
    first, second = (part[:, 0, 0, 0] for part in pairs(volumes, ["p", "q", "r"], 300, drawing))
    assert (first.div(100).floor() != second.div(100).floor()).all()
    depths = torch.tensor([3.0, 7.0, 12.0])
    share = [(part % 100 + 0.5) / depths[part.div(100).floor().long()] for part in (first, second)]
    assert (share[0] - share[1]).abs().max() < 0.5 / 3 + 0.5 / 7 + 1e-6
    around = slices_at(volumes, torch.tensor([1, 1]), torch.tensor([0, 6]), context=1)[:, :, 0, 0]
    assert around.tolist() == [[100, 100, 101], [105, 106, 106]]


@pytest.mark.parametrize(("axes", "size"), SIZES)
def test_losses_in_closed_form(axes: int, size: tuple) -> None:
    image = torch.randn(2, 1, *size, dtype=torch.float64)
    assert local_correlation(image, 3 * image + 1).min() > 0.99
    assert local_correlation(image, torch.randn_like(image)).mean() < 0.4
    ramp = torch.arange(size[-1], dtype=torch.float64).expand(1, 1, *size)
    step = gradients(ramp)[:, -1]
    assert (step[..., :-1] == 1).all() and (step[..., -1] == 0).all() and (gradients(ramp)[:, :-1] == 0).all()
    weight = edge_weight(torch.randn(3, 1, *size), 0.5)
    torch.testing.assert_close(weight.flatten(1).mean(1), torch.full((3,), 1.5))
    still = torch.zeros(1, axes, *size)
    assert smoothness(still, torch.zeros(1, 1, *size)) == pytest.approx(1e-3, rel=1e-3)
    generator = drawn(axes)
    found = generator(image, image, 0.5)
    assert registration(found) >= 0
    exact = photometric(Generator(GeneratorConfig(axes=axes, width=8, scales=(1,))).double()(image, image, 0.5), image)
    assert exact["image"] < 0.02 and exact["occlusion"] < 0.01


def test_what_cannot_be_fused_is_refused() -> None:
    assert check_parents(8, 9) == 3
    for parents in (0, 1, 3, 6):
        with pytest.raises(ConfigError, match="cannot be paired up to one"):
            check_parents(parents, 100)
    with pytest.raises(ConfigError, match="8 subjects are to be fused, there are 5"):
        check_parents(8, 5)
    with pytest.raises(ValueError, match="expected two of one shape with 1 channels and 2 axes"):
        drawn(2)(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8), 0.5)
