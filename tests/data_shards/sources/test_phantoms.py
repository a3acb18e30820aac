from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.phantoms.population import Population
from data_shards.phantoms.recipes import RECIPES
from data_shards.sample import MASK
from data_shards.sources.phantoms import Phantoms, PhantomsConfig
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset

POPULATIONS = sorted({recipe.body.population for recipe in RECIPES.values()})


def test_a_config_makes_one_source_for_each_set() -> None:
    config = PhantomsConfig(sets=("phantom-knee-mri", "phantom-knee-mri-2d"), size=8, subjects=2)
    volumes, slices = Phantoms.from_config(config)
    assert volumes.card.name == "phantom-knee-mri" and volumes.card.dimensionality == "volumetric"
    assert slices.card.dimensionality == "planar" and (len(volumes), len(slices)) == (4, 28)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "phantom-knee-mir"}, "unknown phantom set 'phantom-knee-mir'; did you mean 'phantom-knee-mri'"),
        ({"name": "phantom-brain-mri", "subjects": 0}, "positive"),
        ({"name": "phantom-brain-mri", "slices": [3.0]}, "not a set of slices"),
        ({"name": "phantom-brain-mri", "difficulty": 1.5}, "from 0 to 1"),
        ({"name": "phantom-brain-mri-2d", "slices": [float("nan")]}, "numbers in mm"),
        ({"name": "phantom-brain-mri-2d", "slices": []}, "positive"),
        ({"name": "phantom-brain-mri-2d", "slices": [1.0], "images_per_subject": 2}, "1 slices"),
        ({"name": "phantom-brain-mri", "dtype": "int8"}, "uint8 or native"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Phantoms(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", POPULATIONS)
def test_splits_and_classes_have_about_the_shares_of_the_recipe(name: str) -> None:
    population, shares = Population(f"{name}/0"), {0: 0.2, 1: 0.5, 2: 0.3}
    splits = [population.split(subject) for subject in range(4000)]
    assert [splits.count(split) / 4000 for split in ("train", "val", "test")] == pytest.approx(
        [0.7, 0.1, 0.2], abs=0.02
    )
    labels = np.array([population.label(subject, shares) for subject in range(4000)])
    assert np.bincount(labels) / 4000 == pytest.approx(np.array(list(shares.values())), abs=0.03)


def test_another_seed_is_another_population() -> None:
    one, other = (list(Phantoms("phantom-knee-mri-2d", size=8, subjects=5, seed=seed)) for seed in (0, 1))
    assert not {sample.image.pixels.tobytes() for sample in one} & {sample.image.pixels.tobytes() for sample in other}
    assert not {sample.subject for sample in one} & {sample.subject for sample in other}


def test_a_subject_has_one_split_and_images_that_differ_and_a_slice_beside_its_lesion_has_label_0() -> None:
    source, seen = Phantoms("phantom-brain-mri-2d", size=16, subjects=20, images_per_subject=8, masks=True), set()
    samples = list(source)
    for subject in {sample.subject for sample in samples}:
        own = [sample for sample in samples if sample.subject == subject]
        assert (
            len({sample.split for sample in own}) == 1
            and len({sample.images["image"].pixels.tobytes() for sample in own}) == 8
        )
        lesion = own[0].attributes["lesion_mm3"]
        labels = {int(sample.label[0]) for sample in own if sample.label is not None}
        assert len(labels - {0}) == (lesion > 0)
        seen |= labels
        for sample in own:
            assert sample.label is not None
            assert sample.images[MASK].pixels.max() == sample.label[0]
    assert seen == {0, 1, 2}


def test_shards_of_phantoms_say_that_they_are_synthetic(tmp_path: Path) -> None:
    source = Phantoms("phantom-brain-mri-pet", size=8, subjects=12, images_per_subject=1, masks=True)
    manifest = write_dataset(source, tmp_path / "scans")
    assert not manifest.card.official and "synthetic" in manifest.card.note and manifest.card.classes[1] == "tumour"
    assert manifest.vocabulary["organ"] == {"brain": 1} and set(manifest.vocabulary["modality"]) == {"mri", "pet"}
