"""Volumes shown as bags of slices: which slices, what is kept, and the classifier that does so by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.support.errors import ConfigError, DataError
from finetune.classifier.estimate import cross_validated
from finetune.classifier.estimator import FewLabelClassifier
from finetune.images import Study
from finetune.slices import Slices, sliced
from tests.finetune.samples import Reader, blobs, plane, solid_blobs, tiny_backbone


@pytest.mark.parametrize(("axis", "every"), [(0, 1), (1, 3), (2, 5), (0, 100)])
def test_the_slices_are_those_of_the_volumes(axis: int, every: int) -> None:
    cases = replace(solid_blobs(4), spacing_mm=np.tile([3.0, 1.0, 2.0], (4, 1)).astype(np.float32))
    found = sliced(cases[[2, 0]], Slices(axis=axis, every=every))
    length = cases.images.shape[2 + axis]
    places = list(Slices(axis=axis, every=every).places(length))
    assert places == list(range(every // 2, length, every)) or places == [length - 1]
    assert len(found) == 2 and found.target.classes == cases.target.classes
    for case, origin in enumerate((2, 0)):
        studies = found.studies_of(case)
        assert len(studies) == len(places)
        for study, place in zip(studies, places, strict=True):
            np.testing.assert_array_equal(study.images["image"].pixels, cases.images[origin].take(place, axis=1 + axis))
            assert study.images["image"].spacing_mm == tuple(np.delete([3.0, 1.0, 2.0], axis))


def test_bags_and_volumes_of_different_depth() -> None:
    generator = np.random.default_rng(0)
    studies = [Study({"t1": plane(generator.integers(0, 255, (1, depth, 8, 8)))}) for depth in (3, 5, 4)]
    found = sliced(Reader(studies).cases(blobs(2), np.array([0, 0, 1])), Slices())
    assert [len(found.rows_of(case)) for case in range(2)] == [8, 4]
    expected = [*studies[0].images["t1"].pixels[0], *studies[1].images["t1"].pixels[0]]
    said = [study.images["t1"].pixels[0] for study in found.studies_of(0)]
    np.testing.assert_array_equal(said, expected)


def test_a_classifier_slices_by_itself_and_so_does_the_one_that_was_saved(tmp_path: Path) -> None:
    cases = solid_blobs(24).shared()
    options = {"head": "mil", "head_options": {"instances": "studies", "pooling": "max"}, "max_steps": 20}
    model = FewLabelClassifier("medformer_nano", slices={"axis": 0, "every": 2}, **options).fit(cases)
    (found,) = {len(each.scores_HO) for each in model.instances(cases)}
    assert found == len(Slices(every=2).places(cases.pictures.study(0).images["image"].pixels.shape[1]))
    model.save(tmp_path / "classifier")
    again = FewLabelClassifier.load(tmp_path / "classifier")
    np.testing.assert_allclose(again.predict_proba(cases), model.predict_proba(cases), atol=1e-6)
    by_hand = FewLabelClassifier("medformer_nano", **options).fit(sliced(cases, Slices(every=2)))
    np.testing.assert_allclose(
        by_hand.predict_proba(sliced(cases, Slices(every=2))), model.predict_proba(cases), atol=1e-5
    )
    with pytest.raises(DataError, match="a plane; the classifier was fitted on volumes"):
        again.predict_proba(blobs(3))


def test_a_black_slice_is_no_empty_image() -> None:
    cases = solid_blobs(16)
    model = FewLabelClassifier("medformer_nano", slices={}).fit(cases)
    dark = replace(cases, images=cases.images.copy())
    dark.images[:, :, 0] = 0
    assert np.isfinite(model.predict_proba(dark)).all()
    dark = replace(cases, images=dark.images.copy())
    dark.images[1] = 0
    with pytest.raises(DataError, match="blob-0001: every value is 0"):
        model.predict_proba(dark)


def test_a_cross_validation_encodes_each_slice_once() -> None:
    cases = solid_blobs(16).shared()
    backbone = tiny_backbone()
    model = FewLabelClassifier(backbone, slices={"every": 2}).fit(cases)
    sizes: list[int] = []
    backbone.encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[1])))
    assert 0 <= cross_validated(model, cases, repeats=1).by_repeat[0] <= 1
    assert not sizes


def test_what_has_no_slices_is_refused() -> None:
    with pytest.raises(DataError, match="blobs: slices are of volumes, and an image is a plane"):
        FewLabelClassifier("medformer_nano", slices={}).fit(blobs(8))
    for options, message in [({"axis": 3}, "slices"), ({"evry": 2}, "every")]:
        with pytest.raises(ConfigError, match=message):
            FewLabelClassifier("medformer_nano", slices=options).fit(solid_blobs(8))
    generator = np.random.default_rng(0)
    image = lambda depth: plane(generator.integers(0, 255, (1, depth, 8, 8)))  # noqa: E731
    studies = [Study({"t1": image(4), "t2": image(5)}) for _ in range(2)]
    with pytest.raises(DataError, match="different numbers of voxels"):
        sliced(Reader(studies).cases(blobs(2)), Slices())
