from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from data_shards.phantoms.recipes import RECIPES
from data_shards.phantoms.tissues import HOUNSFIELD
from data_shards.sample import MASK, Sample
from data_shards.sources.phantoms import Phantoms
from data_shards.vocabulary import Dimensionality

NAMES = list(RECIPES)


def content(sample: Sample) -> list[object]:
    label = None if sample.label is None else sample.label.tolist()
    pixels = [(name, image.pixels.tobytes(), image.spacing_mm) for name, image in sample.images.items()]
    return [sample.key, sample.subject, sample.split, label, dict(sample.attributes), pixels]


@pytest.mark.parametrize("name", NAMES)
def test_a_scan_depends_on_its_position_and_options_alone(name: str) -> None:
    source = Phantoms(name, size=12, subjects=3, images_per_subject=2, masks=True)
    straight = [content(sample) for sample in source]
    other = pickle.loads(pickle.dumps(Phantoms(name, size=12, subjects=50, images_per_subject=2, masks=True)))
    for position in (5, 0, 3, 2, 4, 1):
        assert content(other.sample(position)) == straight[position]
    images = {next(iter(sample.images.values())).pixels.tobytes() for sample in source}
    assert len(images) == len(straight)


def test_another_process_draws_the_same_bytes() -> None:
    source = Phantoms("phantom-abdomen-ct-2d", size=24, subjects=2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert content(pool.apply(source.sample, (7,))) == content(source.sample(7))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_spacing_modality_and_dtypes_are_those_of_the_scan(name: str) -> None:
    recipe = RECIPES[name]
    for dtype in ("uint8", "native"):
        sample = Phantoms(name, size=10, masks=True, dtype=dtype).sample(2)  # type: ignore[arg-type]
        for image_name, image in sample.images.items():
            volume = image.dimensionality == Dimensionality.volumetric
            extent = [recipe.body.extent_mm[axis] for axis, _ in recipe.view][0 if volume else 1 :]
            assert image.pixels.shape == (1, *(10,) * len(extent))
            assert image.spacing_mm == pytest.approx([length / 10 for length in extent])
            kinds = {"mri": "uint16", "ct": "int16", "pet": "float32", "xray": "float32"}
            wanted = "uint8" if dtype == "uint8" or image_name == MASK else kinds[image.modality.name]
            assert image.pixels.dtype == wanted and (image_name == MASK or image.pixels.std() > 0)


@pytest.mark.parametrize("flat", [name for name in NAMES if name.endswith("-2d")])
def test_a_slice_is_the_plane_of_its_volume(flat: str) -> None:
    volume, size, place = flat.removesuffix("-2d"), 32, 15
    whole = Phantoms(volume, size=size, difficulty=0.1, masks=True)
    depth = whole.sample(0).image.spacing_mm[0]
    height = -size * depth / 2 + depth * (place + 0.5)
    planes = Phantoms(flat, size=size, difficulty=0.1, masks=True, slices=[0.0, height])
    table, compared = [RECIPES[volume].looks["image"].table], 0
    for number in range(12):
        study, alone = whole._studies.subject(number), planes._studies.subject(number)
        # The two sets give other shares of their subjects a lesion: not every subject has the same in both.
        if study.label != alone.label or compared == 3:
            continue
        compared += 1
        grid = RECIPES[volume].grid(size)
        clean = study.paint(grid, 0, table)[0][0][place]
        assert alone.paint(grid.plane(height), 0, table)[0][0][0] == pytest.approx(clean, abs=1e-6)
        assert (alone.mask(grid.plane(height), 0)[0] == study.mask(grid, 0)[place]).all()
        one, other = planes.sample(2 * number + 1), whole.sample(2 * number)
        assert one.subject == other.subject and one.split == other.split
        noisy, of_volume = one.image.pixels[0].ravel(), other.image.pixels[0, place].ravel()
        assert np.corrcoef(noisy, of_volume)[0, 1] > 0.97
    assert compared == 3


def test_sets_of_one_population_show_the_same_subjects_in_the_same_splits() -> None:
    mri, both = (Phantoms(name, size=16, masks=True) for name in ("phantom-brain-mri", "phantom-brain-mri-pet"))
    for position in range(4):
        one, other = mri.sample(position), both.sample(position)
        assert one.subject == other.subject and one.split == other.split and one.attributes == other.attributes
        assert (one.images[MASK].pixels == other.images[MASK].pixels).all()
        difference = one.image.pixels.astype(float) - other.images["mri"].pixels
        assert 0 < np.abs(difference).mean() < 12


@pytest.mark.parametrize("name", NAMES)
def test_two_visits_differ_in_noise_even_where_pose_and_anatomy_are_the_same(name: str) -> None:
    heights = {"slices": [5.0, 5.0]} if name.endswith("-2d") else {"images_per_subject": 2}
    source = Phantoms(name, size=16, difficulty=0.0, **heights)  # type: ignore[arg-type]
    one, other = (next(iter(source.sample(number).images.values())).pixels.astype(float) for number in (0, 1))
    assert 0 < np.abs(one - other).mean() < 5


def test_a_fifth_of_the_studies_lacks_its_pet() -> None:
    studies = Phantoms("phantom-brain-mri-pet", size=4, subjects=60, images_per_subject=1)
    samples = list(studies)
    lacking = sum("pet" not in sample.images for sample in samples)
    assert 4 <= lacking <= 21 and all("mri" in sample.images for sample in samples)


@pytest.mark.parametrize("difficulty, ratio", [(0.0, 2.0), (0.5, 1.15), (1.0, 1.0)])
@pytest.mark.parametrize("name", ["phantom-brain-mri", "phantom-chest-ct", "phantom-knee-mri", "phantom-abdomen-ct"])
def test_subjects_differ_more_than_visits_of_one_subject(name: str, difficulty: float, ratio: float) -> None:
    source = Phantoms(name, size=20, subjects=6, images_per_subject=2, difficulty=difficulty)
    volumes = [sample.image.pixels.astype(float).ravel() for sample in source]
    within = [np.abs(volumes[2 * s] - volumes[2 * s + 1]).mean() for s in range(6)]
    between = [np.abs(volumes[2 * s] - volumes[2 * t]).mean() for s in range(6) for t in range(s)]
    assert np.median(between) > ratio * np.median(within)


def test_a_radiograph_is_the_line_integral_of_the_ct_of_the_subject() -> None:
    source = Phantoms("phantom-chest-xray", size=24, difficulty=0.0, dtype="native")
    ct = Phantoms("phantom-chest-ct", size=24, difficulty=0.0)
    for number in range(3):
        grid = RECIPES["phantom-chest-xray"].grid(24)
        hounsfield = ct._studies.subject(number).paint(grid, 0, [HOUNSFIELD])[0][0]
        line = (0.02 * (1 + hounsfield / 1000)).sum(axis=0) * 260 / grid.shape[0]
        measured = source.sample(2 * number).image.pixels[0]
        # What is left of 10^6 photons behind the thickest part has this much noise.
        assert measured == pytest.approx(line, abs=0.1)


def test_older_subjects_have_wider_ventricles() -> None:
    """What can be read from the image of the attribute age: the fluid in the middle of the head."""
    source = Phantoms("phantom-brain-mri-2d", size=64, slices=[18.0], subjects=24, difficulty=0.2, dtype="native")
    ages, fluid = [], []
    for sample in source:
        ages.append(sample.attributes["age_years"])
        fluid.append((sample.image.pixels[0, 20:44, 22:42] < 350).mean())
    assert min(ages) >= 20 and max(ages) <= 89 and np.corrcoef(ages, fluid)[0, 1] > 0.5
