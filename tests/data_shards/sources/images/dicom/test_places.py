"""Where slices may lie: rounding is accepted, what is wrong is told as what it is, and resampled when asked."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from data_shards.sources.images.dicom import SliceRules, find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import header, read, save, stack

SIZE = 4


def slices(folder: Path, heights: Any, **attributes: Any) -> list[Path]:
    """Axial slices at these heights, numbers or text as in the file; the value of each is 10 times its height."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, height in enumerate(heights):
        pixels = np.full((SIZE, SIZE), round(10 * float(height)), np.int16)
        content = {
            "ImagePositionPatient": ["0", "0", str(height)],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            "InstanceNumber": number + 1,
        }
        paths.append(save(header(pixels, **content | attributes), folder / f"{number:03d}"))
    return paths


def one(paths: list[Path], rules: SliceRules | None = None) -> Any:
    (series,), unused = find_series(paths)
    assert not unused
    return read_series(series, rules=rules or SliceRules())


@pytest.mark.parametrize("distance", [0.5, 0.625, 0.7, 1.0 / 3, 1.25, 5.0])
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_positions_rounded_to_a_digit_make_the_volume_with_the_distance_of_the_fitted_grid(
    distance: float, digits: int, tmp_path: Path
) -> None:
    if distance < 0.5 and digits == 1:
        distance = 0.8  # a twentieth of a millimetre is more than a tenth of a third
    image = one(slices(tmp_path, [f"{-120.3 + distance * i:.{digits}f}" for i in range(40)]))
    assert image.pixels.shape == (1, 40, SIZE, SIZE)
    assert image.spacing_mm[0] == pytest.approx(distance, rel=10.0**-digits / 40)


def test_the_spacing_is_the_slope_of_the_least_squares_line(tmp_path: Path) -> None:
    heights = np.round(np.arange(9) * 3 + np.random.default_rng(0).normal(0, 0.01, 9), 4)
    expected = np.polyfit(np.arange(9), heights, 1)[0]
    assert one(slices(tmp_path, heights)).spacing_mm[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("off, relative, absolute, accepted", [
    (0.05, 0.02, 0.0, True), (0.09, 0.02, 0.0, False), (0.09, 0.04, 0.0, True),
    (0.09, 0.0, 0.1, True), (0.2, 0.0, 1.0, True), (0.5, 0.0, 1.0, False), (0.0, 0.0, 0.0, True),
])  # fmt: skip
def test_tolerances_are_those_that_were_asked_for(
    off: float, relative: float, absolute: float, accepted: bool, tmp_path: Path
) -> None:
    # One of 5 slices 3 mm apart lies off; the middle one of the fitted grid keeps 4/5 of that.
    paths = slices(tmp_path, [0, 3, 6 + off, 9, 12])
    rules = SliceRules(relative, absolute)
    if accepted:
        assert one(paths, rules).pixels.shape[1] == 5
    else:
        with pytest.raises(DataError, match="the distance of the slices varies"):
            one(paths, rules)


def test_an_absolute_tolerance_hides_no_missing_slice_of_a_fine_volume(tmp_path: Path) -> None:
    heights = [0.03 * i for i in range(20) if i != 12]
    with pytest.raises(DataError, match="0.060 mm apart, most others 0.030: a slice is missing"):
        one(slices(tmp_path, [f"{height:.4f}" for height in heights]))


@pytest.mark.parametrize("count", [4, 5, 20, 100])
def test_a_missing_slice_is_found_wherever_it_was(count: int, tmp_path: Path) -> None:
    paths = slices(tmp_path, [2.5 * i for i in range(count)])
    for number in {1, count // 2, count - 2}:
        with pytest.raises(
            DataError, match=rf"slices {number} and {number + 1} of {count - 1} lie 5.000 mm apart, .* a sl"
        ):
            one(paths[:number] + paths[number + 1 :])


HEAD = np.concatenate([[0], np.cumsum([4.0] * 14 + [7.0] * 13)])


@pytest.mark.parametrize(
    "heights, said",
    [
        (HEAD, "the distance of the slices varies: 14 gaps of 4 mm, 13 of 7 mm; uneven_slices: resample"),
        (np.cumsum([0, *[5] * 8, *[10] * 7]), "the distance of the slices varies: 8 gaps of 5 mm, 7 of 10 mm;"),
        ([0, 3, 6, 9, 15, 18, 21, 24, 27, 30, 33], "slices 4 and 5 of 11 lie 6.000 mm apart, .*: a slice is missing"),
        ([0, 3, 6, 9, 18, 21, 24, 27, 30, 33, 36], "slices 4 and 5 of 11 lie 9.000 mm .*: 2 slices are missing"),
        ([0, 1, 3, 7, 15, 31], "the distance of the slices varies: .* and 2 others;"),
    ],
)
def test_what_is_wrong_with_the_distances_is_told(heights: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        one(slices(tmp_path, heights))


def test_uneven_slices_are_interpolated_linearly_onto_a_stated_grid_when_asked(tmp_path: Path) -> None:
    image = one(slices(tmp_path, HEAD), SliceRules(resample=True))
    steps = round(HEAD[-1] / 4)
    assert image.spacing_mm == (pytest.approx(HEAD[-1] / steps), 1, 1)
    expected = np.rint(np.interp(np.linspace(0, HEAD[-1], steps + 1), HEAD, np.rint(10 * HEAD)))
    assert image.pixels.dtype == np.int16 and np.array_equal(image.pixels[0, :, 0, 0], expected)
    assert (image.pixels == image.pixels[:, :, :1, :1]).all()


def test_what_is_regular_is_not_touched_by_resampling(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    assert np.array_equal(one(paths).pixels, one(paths, SliceRules(resample=True)).pixels)


def test_positions_count_and_not_the_spacing_that_a_header_names(tmp_path: Path) -> None:
    image = one(slices(tmp_path, [0, 2, 4, 6], SpacingBetweenSlices=5, SliceThickness=7))
    assert image.spacing_mm[0] == pytest.approx(2)


def test_slice_locations_and_instance_numbers_are_held_to_the_same_rules(tmp_path: Path) -> None:
    def unplaced(number: int, dataset: Dataset) -> None:
        del dataset.ImagePositionPatient
        dataset.SliceLocation = f"{0.625 * number:.2f}"

    assert one(stack(tmp_path / "a", change=unplaced)).spacing_mm[0] == pytest.approx(0.625, abs=0.002)

    def numbered(number: int, dataset: Dataset) -> None:
        del dataset.ImagePositionPatient
        dataset.InstanceNumber, dataset.SliceThickness = (1, 2, 3, 5, 6)[number], 4

    with pytest.raises(DataError, match="slices 3 and 4 of 5 lie 2.000 instance numbers apart, .* a slice is missing"):
        one(stack(tmp_path / "b", change=numbered))


def test_orientations_that_rounding_has_bent_are_straightened(tmp_path: Path) -> None:
    angle = np.deg2rad(27)
    axial = [np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0]
    paths = slices(tmp_path, [0, 2, 4, 6], ImageOrientationPatient=[f"{cosine:.1f}" for cosine in axial])
    (series,), unused = find_series(paths)
    assert not unused
    image = read_series(series)
    assert image.spacing_mm == pytest.approx((2, 1, 1)) and image.pixels.shape == (1, 4, SIZE, SIZE)
    bent = slices(tmp_path / "bent", [0, 2, 4], ImageOrientationPatient=[1, 0.04, 0, 0, 1, 0])
    assert one(bent).spacing_mm[0] == pytest.approx(2)


@pytest.mark.parametrize("given", list(itertools.product((0.03, -0.02), (0.0, 0.01))))
def test_straightened_directions_are_unit_vectors_at_right_angles_nearest_to_the_given(given: tuple) -> None:
    from data_shards.sources.images.dicom.plane import at_right_angles

    first, second = np.array([1, given[0], given[1]]), np.array([0.01, 1, -given[1]])
    found = np.reshape(at_right_angles((*first, *second)), (2, 3))
    assert np.allclose(found @ found.T, np.eye(2), atol=1e-12)
    # The nearest orthonormal pair is the polar factor, by singular values.
    pair = np.stack([first / np.linalg.norm(first), second / np.linalg.norm(second)])
    left, _, right = np.linalg.svd(pair, full_matrices=False)
    assert np.allclose(found, left @ right, atol=1e-12)


def test_slices_whose_orientations_differ_by_rounding_are_one_volume(tmp_path: Path) -> None:
    def jitter(number: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [1, f"{1e-3 * (number % 2):.4f}", 0, 0, 1, f"{-5e-4 * (number % 3):.4f}"]
        dataset.PixelSpacing = [f"{1.5 + 0.001 * (number % 2)}", "0.75"]

    assert read(stack(tmp_path, change=jitter)).pixels.shape == (1, 5, 6, 7)
