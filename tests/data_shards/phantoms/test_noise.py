from __future__ import annotations

import numpy as np
import pytest

from data_shards.phantoms.grid import AXIAL, CORONAL, Grid
from data_shards.phantoms.modalities import Ct, Mri, Pet, Radiograph, Scan, project
from data_shards.phantoms.noise import Shading, blur, poisson, rician, streaks, transmission
from data_shards.phantoms.tissues import T1

COUNT = (40, 80, 80)


def uniform_scan(noise: float = 1.0) -> Scan:
    grid = Grid.around_centre(AXIAL, (160.0, 160.0, 160.0), COUNT)
    return Scan(grid, np.zeros(COUNT), np.zeros(COUNT), noise)


def test_rician_noise_has_the_moments_of_its_law() -> None:
    random = np.random.default_rng(0)
    for signal, sigma in ((0.0, 0.1), (0.1, 0.1), (1.0, 0.05)):
        values = rician(np.full(COUNT, signal), sigma, random)
        square = signal**2 + 2 * sigma**2
        assert (values**2).mean() == pytest.approx(square, rel=0.01)
        assert (values**4).mean() == pytest.approx(square**2 + 4 * sigma**2 * (signal**2 + sigma**2), rel=0.02)
    in_air = rician(np.zeros(COUNT), 0.1, random)
    assert in_air.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.01)


def test_counts_have_a_variance_equal_to_their_mean() -> None:
    values = poisson(np.full(COUNT, 0.8), 60, np.random.default_rng(1)) * 60
    assert values.mean() == pytest.approx(48, rel=0.005) and values.var() == pytest.approx(48, rel=0.02)


def test_transmission_measures_the_line_with_the_noise_of_the_photons_that_are_left() -> None:
    measured = transmission(np.full(COUNT, 3.0), 1e5, np.random.default_rng(2))
    left = 1e5 * np.exp(-3)
    assert measured.mean() == pytest.approx(3.0, abs=0.001) and measured.var() == pytest.approx(1 / left, rel=0.02)
    assert np.isfinite(transmission(np.full((1, 4, 4), 80.0), 1e5, np.random.default_rng(2))).all()


def test_streaks_are_standard_noise_that_is_alike_along_lines() -> None:
    field = streaks((60, 64, 64), np.random.default_rng(3))
    assert field.mean() == pytest.approx(0, abs=0.02) and field.var() == pytest.approx(1, rel=0.05)
    assert field.var(axis=0).std() < 0.3
    # White noise has a flat spectrum; that of streaks lies on a few lines through the origin.
    power = np.sort((np.abs(np.fft.fft2(field[0])) ** 2).ravel())[::-1]
    white = np.sort((np.abs(np.fft.fft2(np.random.default_rng(4).normal(size=(64, 64)))) ** 2).ravel())[::-1]
    tenth = power.size // 10
    assert power[:tenth].sum() / power.sum() > 0.6 > 0.4 > white[:tenth].sum() / white.sum()


def test_blur_keeps_the_sum_and_has_the_width_asked_for() -> None:
    point = np.zeros((41, 41, 41))
    point[20, 20, 20] = 1
    spread = blur(point, 8.0, (1.0, 1.0, 2.0))
    assert spread.sum() == pytest.approx(1)
    for axis, spacing in enumerate((1.0, 1.0, 2.0)):
        profile = spread.sum(axis=tuple(other for other in range(3) if other != axis))
        place = (np.arange(41) - 20) * spacing
        assert 2.3548 * np.sqrt((profile * place**2).sum()) == pytest.approx(8.0, rel=0.05)


def test_shading_is_about_zero_and_the_same_in_a_slice_as_in_the_volume() -> None:
    grid = Grid.around_centre(AXIAL, (200.0, 200.0, 200.0), (40, 40, 40))
    shading = Shading(np.random.default_rng(5), 0.5, (200.0, 200.0, 200.0))
    field = shading(grid)
    assert field.mean() == pytest.approx(0, abs=1e-3) and field.std() > 0.1
    assert shading(grid.plane(grid.first[0] + 7 * grid.spacing[0]))[0] == pytest.approx(field[7])


def test_each_modality_adds_the_noise_of_its_kind_to_a_uniform_tissue() -> None:
    random = np.random.default_rng(6)
    scan = uniform_scan(noise=0.5)
    hounsfield = Ct().acquire(np.full(COUNT, 60.0), scan, random)
    assert hounsfield.mean() == pytest.approx(60, abs=1.5)
    assert hounsfield.std() == pytest.approx(Ct.SIGMA * 0.5, rel=0.05)
    signal = Mri(T1).acquire(np.full(COUNT, 0.5), scan, random)
    assert (signal**2).mean() == pytest.approx(0.25 + 2 * (Mri.SIGMA * 0.5) ** 2, rel=0.005)
    uptake = Pet().acquire(np.full(COUNT, 1.0), scan, random)
    assert uptake.mean() == pytest.approx(1, rel=0.01)
    assert uptake.var() == pytest.approx(0.5**2 / Pet.COUNTS, rel=0.02)


def test_a_radiograph_is_the_line_integral() -> None:
    grid = Grid.around_centre(CORONAL, (200.0, 80.0, 80.0), (50, 40, 40))
    attenuation = np.random.default_rng(7).uniform(0, 0.02, grid.shape)
    scan = Scan(grid, np.zeros(grid.shape), np.zeros(grid.shape), 1e-4)
    line = np.trapezoid(np.pad(attenuation, ((1, 1), (0, 0), (0, 0))), dx=4.0, axis=0)
    assert project(attenuation, grid)[0] == pytest.approx(line)
    measured = Radiograph().acquire(attenuation, scan, np.random.default_rng(8))
    assert measured[0] == pytest.approx(line, abs=0.001)


def test_windows_become_the_range_of_uint8_and_native_values_keep_their_unit() -> None:
    assert Ct(window=(-100.0, 100.0)).display(np.array([-500.0, -100, 0, 100, 2000])).tolist() == [0, 0, 128, 255, 255]
    stored = [
        (Ct().native(np.array([-1000.4, 60.6])), np.int16, [-1000, 61]),
        (Mri(T1).native(np.array([0.5, 0.7812])), np.uint16, [500, 781]),
        (Pet().native(np.array([0.25])), np.float32, [0.25]),
        (Radiograph().native(np.array([1.5])), np.float32, [1.5]),
    ]
    for values, dtype, expected in stored:
        assert values.dtype == dtype and values.tolist() == expected
