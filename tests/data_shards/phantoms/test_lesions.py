from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_shards.phantoms.clutter import draw_clutter
from data_shards.phantoms.difficulty import Difficulty, difficulty
from data_shards.phantoms.grid import AXIAL, Grid, Warp
from data_shards.phantoms.lesions import LesionKind, draw_lesions
from data_shards.phantoms.recipes import RECIPES
from data_shards.phantoms.shapes import Intersection, Superquadric
from data_shards.phantoms.waves import Rough
from data_shards.sample import MASK
from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import DataError


@pytest.mark.parametrize("name", RECIPES)
def test_the_mask_is_empty_exactly_where_the_label_says_no_lesion(name: str) -> None:
    source = Phantoms(name, size=20, subjects=8, images_per_subject=2, masks=True)
    seen = set()
    for sample in source:
        assert sample.label is not None
        label = int(sample.label[0])
        seen.add(label)
        assert set(np.unique(sample.images[MASK].pixels)) - {0} == ({label} if label else set())
        if label:
            assert sample.attributes["lesion_mm3"] > 0
    assert len(seen) > 1


# On T1, proton density and CT these are darker than their host, a lung nodule is brighter; a tumour takes up tracer.
@pytest.mark.parametrize(
    "name, label, sign",
    [
        ("phantom-brain-mri", 1, -1),
        ("phantom-brain-mri-t2", 1, 1),
        ("phantom-brain-pet", 1, 1),
        ("phantom-chest-ct", 1, 1),
        ("phantom-knee-mri", 1, -1),
        ("phantom-abdomen-ct", 2, -1),
    ],
)
def test_lesions_are_brighter_or_darker_than_around_as_their_modality_has_it(name: str, label: int, sign: int) -> None:
    source = Phantoms(name, size=40, difficulty=0.1, masks=True, dtype="native")
    found = 0
    for number in range(20):
        if source._studies.subject(number).label != label or found == 2:
            continue
        images = source.sample(number * source.images_per_subject).images
        mask, values = images[MASK].pixels[0] > 0, images["image"].pixels[0].astype(float)
        if mask.sum() >= 8:
            found += 1
            shell = grown(grown(mask)) & ~grown(mask)
            assert sign * (np.median(values[mask]) - np.median(values[shell])) > 0
    assert found


def grown(mask: np.ndarray) -> np.ndarray:
    return np.logical_or.reduce([mask, *(np.roll(mask, step, axis) for step in (-1, 1) for axis in range(3))])


@pytest.mark.parametrize("name, label", [("phantom-abdomen-ct", 1), ("phantom-brain-mri", 1), ("phantom-chest-ct", 2)])
def test_the_volume_of_a_lesion_is_the_same_at_every_resolution(name: str, label: int) -> None:
    sources = [Phantoms(name, size=size, masks=True, difficulty=0.4) for size in (40, 64)]
    number = next(n for n in range(40) if sources[0]._studies.subject(n).label == label)
    for source, bound in zip(sources, (0.15, 0.06), strict=True):
        sample = source.sample(number * source.images_per_subject)
        voxels = (sample.images[MASK].pixels > 0).sum() * np.prod(sample.images[MASK].spacing_mm)
        assert voxels == pytest.approx(sample.attributes["lesion_mm3"], rel=bound)


def test_the_volume_of_a_smooth_lesion_is_that_of_its_ellipsoid() -> None:
    source = Phantoms("phantom-brain-mri", difficulty=0.0)
    whole = 0
    for number in range(40):
        subject = source._studies.subject(number)
        if subject.label != 1:
            continue
        (lesion,) = subject.lesions
        assert isinstance(lesion.shape, Intersection) and isinstance(lesion.shape.shape, Rough)
        ellipsoid = lesion.shape.shape.shape
        assert isinstance(ellipsoid, Superquadric) and ellipsoid.rotation is not None
        surface = np.random.default_rng(0).normal(size=(400, 3))
        surface *= ellipsoid.radii / np.linalg.norm(surface, axis=1, keepdims=True)
        outline = ellipsoid.centre + surface @ ellipsoid.rotation.T
        if lesion.shape.other.distance(*outline.T).max() < 0:  # no part is cut off by the host
            whole += 1
            assert subject.lesion_mm3 == pytest.approx(ellipsoid.volume, rel=0.02)
        else:
            assert subject.lesion_mm3 < 1.01 * ellipsoid.volume
    assert whole


def test_lesions_lie_in_their_host() -> None:
    host = Superquadric((10, 0, -5), (40, 30, 25))
    kind = LesionKind("there", (3, 3), (5, 9))
    points = Grid.around_centre(AXIAL, (120, 120, 120), (60, 60, 60)).points
    for seed in range(5):
        lesions = draw_lesions("tumour", kind, {"there": host}, np.random.default_rng(seed), difficulty(0.8))
        assert len(lesions) == 3
        for lesion in lesions:
            inside = lesion.shape.distance(*points) < 0
            assert inside.any() and (host.distance(*points)[inside] < 0).all()


def test_an_easier_clutter_is_part_of_a_harder_one() -> None:
    body = Superquadric((0, 0, 0), (90, 90, 90))
    few, many = (draw_clutter(("fat",), body, (180, 180, 180), np.random.default_rng(1), count) for count in (3, 9))
    points = Warp(np.random.default_rng(0), 0.0).points(Grid.around_centre(AXIAL, (180,) * 3, (30,) * 3))
    assert len(few) == 3 and len(many) == 9
    for one, other in zip(few, many, strict=False):
        assert (one.shape.distance(*points) == other.shape.distance(*points)).all() and one.opacity == other.opacity


def test_every_parameter_of_difficulty_changes_in_one_direction() -> None:
    levels = [difficulty(level) for level in np.linspace(0, 1, 11)]
    for name in Difficulty.__dataclass_fields__:
        steps = np.diff([getattr(level, name) for level in levels])
        harder_when_less = name in ("lesion_contrast", "lesion_size")
        assert (steps < 0).all() if harder_when_less else (steps >= 0).all() and steps.sum() > 0
    for outside in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match="from 0 to 1"):
            difficulty(outside)


@pytest.mark.parametrize("name", ["phantom-brain-mri", "phantom-knee-mri", "phantom-chest-ct"])
def test_lesions_stand_out_less_at_every_step_of_difficulty(name: str) -> None:
    """Contrast to noise: difference to the surroundings of the lesion over their spread, median over subjects."""
    contrast = [_contrast_to_noise(name, level) for level in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert (np.diff(contrast) < 0).all() and contrast[0] > 3 * contrast[-1]


def _contrast_to_noise(name: str, level: float) -> float:
    source, found = Phantoms(name, size=32, difficulty=level, masks=True, dtype="native", images_per_subject=1), []
    for number in range(24):
        if source._studies.subject(number).label == 1:
            images = source.sample(number).images
            mask, values = images[MASK].pixels[0] > 0, images["image"].pixels[0].astype(float)
            around = values[grown(grown(mask)) & ~grown(mask)]
            found.append(abs(values[mask].mean() - np.median(around)) / around.std())
    return float(np.median(found))


@pytest.mark.slow
def test_lesions_are_found_on_new_subjects_when_easy_and_hardly_when_hard() -> None:
    """A linear classifier on histograms of the image."""
    assert _histogram_auc(0.1) > max(0.75, _histogram_auc(0.9) + 0.1)


def _histogram_auc(level: float) -> float:
    source = Phantoms("phantom-knee-mri", size=20, subjects=240, images_per_subject=1, difficulty=level)
    features, lesion, train = [], [], []
    for sample in source:
        assert sample.label is not None
        features.append(np.sqrt(np.bincount(sample.image.pixels.ravel() // 8, minlength=32) / sample.image.pixels.size))
        lesion.append(sample.label[0] > 0)
        train.append(sample.split == "train")
    inputs, targets, fit = np.array(features), np.array(lesion), np.array(train)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=500)).fit(inputs[fit], targets[fit])
    return float(roc_auc_score(targets[~fit], linear.predict_proba(inputs[~fit])[:, 1]))
