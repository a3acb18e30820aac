from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from data_shards.support.errors import ConfigError, DataError, MedformerError
from finetune.backbones import open_backbone
from finetune.cases import Cases
from finetune.classifier.adaptation import new_readout
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.classifier.given import Given, Plan
from finetune.classifier.head_first import HeadFirst
from finetune.fit.schedules import SCHEDULES, Schedule
from finetune.random_state import seeded
from pretrain.bundle import save_bundle
from tests.finetune.samples import (
    TARGETS,
    TINY,
    Reader,
    blobs,
    of_target,
    seeing_backbone,
    solid_blobs,
    studies_of,
    tiny_backbone,
)

LINEAR = {"head_options": {"reads": "embedding"}}
WAYS = [("linear", "frozen"), ("attention", "frozen"), ("linear", "full"), ("attention", "full")]
QUICK = {"max_steps": 60, "batch_size": 8, "learning_rate": 3e-3, "augmentation": False}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return save_bundle(folder, tiny_backbone(), "medformer_nano", TINY, {}, {})


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_it_beats_chance_on_unseen_images_and_repeats_itself(head: str, strategy: str) -> None:
    given, test = blobs(28, seed=1), blobs(60, seed=2)

    def fitted() -> FewLabelClassifier:
        options = {} if (head, strategy) == ("linear", "frozen") else QUICK
        classifier = FewLabelClassifier(seeing_backbone(), head=head, strategy=strategy, backbone_rate=1e-3, **options)
        return classifier.fit(given.images, given.targets)

    first, second = fitted(), fitted()
    assert first.score(test.images, test.targets) > 0.8
    np.testing.assert_array_equal(first.predict_proba(test.images), second.predict_proba(test.images))
    assert first.record_ == second.record_


def test_scikit_learn_clones_it_and_cross_validates_it() -> None:
    given = blobs(30, seed=1)
    classifier = FewLabelClassifier(seeing_backbone(), seed=3, class_weight=None, **LINEAR)
    copy = clone(classifier)
    assert copy is not classifier
    assert copy.get_params()["seed"] == 3
    assert cross_val_score(classifier, given.images, given.targets, cv=3).mean() > 0.8
    assert copy.set_params(head="attention").head == "attention"
    with pytest.raises(ConfigError, match="did you mean 'head'"):
        copy.set_params(haed="linear")


class OfTables(FewLabelClassifier):
    """The classifier for the tables of numbers that scikit-learn's checks bring: a row becomes an image."""

    def fit(self, X, y):
        return super().fit(_pictures(X), y)

    def predict_proba(self, X, spacing_mm=None):
        return super().predict_proba(_pictures(X))


def _pictures(rows: np.ndarray) -> np.ndarray:
    pixels = np.stack([np.resize(row, (1, 8, 8)) for row in rows])
    return (128 + 10 * pixels).clip(0, 255).astype(np.uint8)


def _checks() -> list:
    # Images are not two-dimensional, so those that are about columns, dtypes and missing numbers are not among them.
    with pytest.warns(UserWarning, match="Can't test estimator"):
        checks = list(estimator_checks_generator(OfTables()))
    return [pytest.param(*pair, id=pair[1].func.__name__) for pair in checks]


@pytest.mark.parametrize(("estimator", "check"), _checks())
def test_it_passes_the_checks_of_scikit_learn_for_its_api(estimator: OfTables, check) -> None:
    check(estimator)


def test_groups_reach_every_fit_of_cross_validation_and_grid_search() -> None:
    given = blobs(24, seed=1)
    subjects = np.repeat(np.arange(12), 2)
    classifier = FewLabelClassifier(tiny_backbone(), **LINEAR)
    scores = cross_val_score(
        classifier, given.images, given.targets, groups=subjects, cv=GroupKFold(3), params={"groups": subjects}
    )
    assert scores.shape == (3,) and np.isfinite(scores).all()
    search = GridSearchCV(classifier, {"class_weight": [None, "balanced"]}, cv=GroupKFold(2))
    search.fit(given.images, given.targets, groups=subjects)
    assert search.best_params_["class_weight"] in (None, "balanced")


@pytest.fixture(scope="module")
def memorised(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A saved classifier whose network has learned random labels of noise by heart."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, size=(24, 1, 8, 8)).astype(np.uint8)
    labels = generator.permutation(np.arange(24) % 2)
    options = {"max_steps": 150, "batch_size": 24, "learning_rate": 1e-2, "backbone_rate": 3e-3, "augmentation": False}
    classifier = FewLabelClassifier(bundle, strategy="full", weight_decay=0.0, layer_decay=1.0, **options)
    classifier.fit(images, labels)
    assert classifier.score(images, labels) == 1.0
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    classifier.save(folder)
    return folder, images, labels


def test_a_loaded_classifier_is_cross_validated_from_its_bundle_not_from_what_it_has_seen(
    bundle: Path, memorised: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    folder, images, labels = memorised
    loaded = FewLabelClassifier.load(folder).set_params(strategy="frozen", **LINEAR)
    leaking = FewLabelClassifier(loaded.predictor_.members[0].backbone, **LINEAR)
    found, leaked, fresh = (
        cross_val_score(each, images, labels, cv=4) for each in (loaded, leaking, FewLabelClassifier(bundle, **LINEAR))
    )
    np.testing.assert_array_equal(found, fresh)
    assert found.mean() < 0.75 < 0.95 < leaked.mean()  # chance is a half


def test_a_loaded_classifier_whose_bundle_is_gone_or_changed_predicts_but_is_not_fitted_again(
    memorised: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    _, images, labels = memorised
    home = save_bundle(tmp_path / "home", tiny_backbone(), "medformer_nano", TINY, {}, {})
    FewLabelClassifier(home, **LINEAR).fit(images, labels).save(tmp_path / "saved")
    loaded = FewLabelClassifier.load(tmp_path / "saved")
    save_bundle(home, tiny_backbone(1), "medformer_nano", TINY, {}, {})
    with pytest.raises(ConfigError, match=r"home: the model .* has other weights; .*set_params\(backbone=") as no:
        clone(loaded).fit(images, labels)
    assert "\n" not in str(no.value)
    shutil.rmtree(home)
    with pytest.raises(ConfigError, match="is not there"):
        clone(loaded).fit(images, labels)
    assert loaded.predict(images).shape == labels.shape
    assert clone(loaded).set_params(backbone=tiny_backbone()).fit(images, labels).score(images, labels) >= 0.5


def test_the_network_of_a_classifier_is_no_pretrained_bundle(memorised: tuple[Path, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ConfigError, match="backbone: the network of a fitted classifier, which has seen labels"):
        open_backbone(memorised[0] / "backbone", 0)


def test_a_classifier_that_was_saved_on_a_gpu_opens_without_one(
    memorised: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder, images, _ = memorised
    classifier = FewLabelClassifier.load(folder)
    classifier.set_params(device="cuda").save(tmp_path / "saved")
    assert "cuda" not in (tmp_path / "saved" / "classifier.json").read_text()
    document = json.loads((tmp_path / "saved" / "classifier.json").read_text())
    document["params"]["device"] = "cuda"
    (tmp_path / "saved" / "classifier.json").write_text(json.dumps(document))
    loaded = FewLabelClassifier.load(tmp_path / "saved")
    assert loaded.device == "cpu"
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


def test_subjects_of_both_classes_are_divided_and_the_record_says_so() -> None:
    given = blobs(60, seed=1)
    subjects = np.repeat(np.arange(20), 3)  # of three images in a row, one or two are of the other class
    record = FewLabelClassifier(tiny_backbone(), **LINEAR).fit(given.images, given.targets, subjects).record_
    assert record.selection == "5-fold cross-validation within the given labels"
    few = (
        FewLabelClassifier(tiny_backbone(), **LINEAR).fit(given.images[:12], given.targets[:12], subjects[:12]).record_
    )
    assert few.selection == "4-fold cross-validation within the given labels"
    head = FewLabelClassifier(tiny_backbone(), head="attention", max_steps=10)
    assert head.fit(given[:60], groups=subjects).record_.selection == "carved fifth of the given labels"


@pytest.mark.slow
def test_a_full_fit_chooses_its_own_schedule_among_the_same_few() -> None:
    given = blobs(24, seed=1, side=8)

    def chosen(steps: int | None, rate: float | None, images: int = 24) -> tuple[str, dict]:
        classifier = FewLabelClassifier(tiny_backbone(), strategy="full", max_steps=steps, learning_rate=rate)
        record = classifier.fit(given.images[:images], given.targets[:images]).record_
        return record.selection, record.chosen

    said, both = chosen(None, None)
    assert said == "schedule by a carved part of the given labels, run whole"
    losses = both["held_out_loss"]
    assert list(losses) == [str(schedule) for schedule in SCHEDULES]
    assert both["schedule"] == min(losses, key=losses.get)
    assert str(both["steps"]) == both["schedule"].split()[0]
    _, rates = chosen(4, None)
    assert list(rates["held_out_loss"]) == ["4 steps at 0.001", "4 steps at 0.003"]
    said, nothing = chosen(None, None, images=2)
    assert said.startswith("none: a class has a single subject") and nothing["steps"] == SCHEDULES[0].steps


def test_a_full_fit_moves_the_backbone_and_leaves_the_given_one_alone() -> None:
    given, mine = blobs(16, seed=1), tiny_backbone()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    frozen = FewLabelClassifier(mine, **LINEAR).fit(given).predictor_.members[0].backbone.state_dict()
    full = FewLabelClassifier(mine, strategy="full", **{**QUICK, "max_steps": 3}).fit(given)
    moved = full.predictor_.members[0].backbone.state_dict()
    assert all(torch.equal(mine.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(frozen[name], tensor) for name, tensor in before.items())
    assert not torch.equal(moved["adapter.stem.first.weight"], before["adapter.stem.first.weight"])


def test_a_fit_leaves_the_global_random_state_alone() -> None:
    given = blobs(12, seed=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    FewLabelClassifier(tiny_backbone(), strategy="full", max_steps=3).fit(given.images, given.targets)
    assert torch.equal(torch.rand(3), expected)


def test_the_record_counts_distinct_images_and_says_how_it_chose() -> None:
    pool = blobs(40, seed=1)
    given = pool.select(np.r_[np.arange(40), 0, 1])
    record = FewLabelClassifier(tiny_backbone(), **LINEAR).fit(given.images, given.targets, index_sha256="abc").record_
    assert (record.labelled_images, record.distinct_labelled_images, record.index_sha256) == (42, 40, "abc")
    assert record.per_class == {"0": 21, "1": 21}
    assert record.selection == "5-fold cross-validation within the given labels"
    few = FewLabelClassifier(tiny_backbone(), **LINEAR).fit(pool.images[:8], pool.targets[:8]).record_
    assert few.selection == "4-fold cross-validation within the given labels"
    quick = {"strategy": "full", "max_steps": 4, "learning_rate": 1e-3}
    full = FewLabelClassifier(tiny_backbone(), **quick).fit(pool.images[:8], pool.targets[:8])
    assert full.record_.selection.startswith("none") and full.record_.chosen["steps"] == 4
    many = blobs(100, seed=2, side=8)
    full = FewLabelClassifier(tiny_backbone(), **quick).fit(many.images, many.targets)
    assert full.record_.selection == "schedule and number of steps by a carved part of the given labels"


@pytest.mark.slow
def test_multilabel_targets_give_one_probability_per_label() -> None:
    given = blobs(60, 4, seed=1)
    targets = np.stack([given.targets % 2, given.targets // 2], axis=1)
    classifier = FewLabelClassifier(tiny_backbone()).fit(given.images, targets)
    test = blobs(40, 4, seed=2)
    assert classifier.predict(test.images).shape == (40, 2)
    assert classifier.score(test.images, np.stack([test.targets % 2, test.targets // 2], axis=1)) > 0.75


def test_a_fresh_network_by_name_is_fixed_by_the_seed() -> None:
    given = blobs(8, seed=1, side=8)
    probabilities = [
        FewLabelClassifier("medformer_nano", seed=seed, **LINEAR).fit(given).predict_proba(given.images)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    assert not np.array_equal(probabilities[0], probabilities[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((4, 28, 28), np.uint8)}, "N,C,H,W"),
        ({"X": np.zeros((4, 1, 8, 8), np.float32)}, "uint8"),
        ({"X": np.zeros((4, 2, 8, 8), np.uint8)}, "1 or 3 channels"),
        ({"y": np.array([0, 1])}, "4 images, 2 labels"),
        ({"y": np.zeros(4)}, "at least two classes"),
        ({"y": np.array([0.0, np.nan, 1.0, 1.0])}, "NaN"),
        ({"groups": np.array([1])}, "1 groups"),
        ({"groups": [None] * 4}, "groups: the one of image 0 is missing"),
        ({"groups": np.array([1, 2, np.nan, np.nan])}, "groups: the one of image 2 is missing"),
        ({"groups": ["a", "b", float("nan"), "c"]}, "groups: the one of image 2 is missing"),
        ({"groups": np.array(["a", 1, 2, "b"], dtype=object)}, "groups: values of several types"),
        ({"groups": np.zeros((4, 2))}, "groups: expected one for each image"),
        ({"y": np.array(["a", None, "b", "b"], dtype=object)}, "y: the one of image 1 is missing"),
        ({"y": ["a", "b", "b", float("nan")]}, "y: the one of image 3 is missing"),
        ({"y": np.array(["a", 1, "b", 1], dtype=object)}, "y: values of several types"),
    ],
)
def test_input_that_cannot_be_used_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    arguments = {"X": np.zeros((4, 1, 8, 8), np.uint8), "y": np.array([0, 1, 0, 1])} | change
    with pytest.raises(DataError, match=message):
        FewLabelClassifier(tiny_backbone()).fit(**arguments)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"head": "linaer"}, "did you mean 'linear'"),
        ({"strategy": "fulll"}, "did you mean 'full'"),
        ({"backbone": "medformer_nanno"}, "did you mean 'medformer_nano'"),
        ({"class_weight": "even"}, "class_weight"),
        ({"max_steps": 0}, "max_steps must be positive"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(parameters: dict[str, object], message: str) -> None:
    given = blobs(4, seed=1)
    with pytest.raises(ConfigError, match=message):
        FewLabelClassifier(**{"backbone": tiny_backbone(), **parameters}).fit(given.images, given.targets)


def test_an_estimator_that_is_not_fitted_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not fitted"):
        FewLabelClassifier().predict(blobs(4).images)
    with pytest.raises(NotFittedError, match="not fitted"):
        FewLabelClassifier().predict_proba(blobs(4).images)
    with pytest.raises(ConfigError, match="not fitted"):
        FewLabelClassifier().save(tmp_path / "classifier")


def test_cases_are_cross_validated_and_searched_as_arrays_are() -> None:
    given = blobs(24, seed=1)
    subjects = np.repeat(np.arange(12), 2)
    cases = replace(given, subjects=subjects)
    cut = {"groups": subjects, "cv": GroupKFold(3)}
    classifier = FewLabelClassifier(tiny_backbone(), organ="chest", modality="xray", **LINEAR)
    of_cases = cross_val_score(classifier, cases, cases.targets, **cut)
    of_arrays = cross_val_score(classifier, given.images, given.targets, params={"groups": subjects}, **cut)
    np.testing.assert_array_equal(of_cases, of_arrays)
    proba = cross_val_predict(classifier, cases, cases.targets, method="predict_proba", **cut)
    assert proba.shape == (24, 2) and np.isfinite(proba).all()
    grid = [
        {"head_options": [{"reads": "embedding"}, {"reads": "mean_spread"}]},
        {"strategy": ["full"], "max_steps": [2]},
    ]
    search = GridSearchCV(classifier, grid, cv=GroupKFold(2)).fit(cases, cases.targets, groups=subjects)
    assert len(search.cv_results_["params"]) == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(cases).shape == (24,)


def test_it_ends_a_pipeline() -> None:
    given = blobs(16, seed=1)
    brighter = FunctionTransformer(lambda images: np.minimum(images.astype(int) + 20, 255).astype(np.uint8))
    pipeline = Pipeline([("brighter", brighter), ("model", FewLabelClassifier(tiny_backbone(), **LINEAR))])
    assert pipeline.fit(given.images, given.targets).score(given.images, given.targets) > 0.8
    assert clone(pipeline).set_params(model__seed=4).get_params()["model__seed"] == 4


def test_cases_bring_task_names_subjects_and_the_order_of_classes() -> None:
    cases = of_target("ordinal", 24, seed=1)
    bare, with_y = (
        FewLabelClassifier(tiny_backbone(), **LINEAR).fit(cases, *labels) for labels in ((), (cases.targets,))
    )
    assert bare.predictor_.target.task.name == with_y.predictor_.target.task.name == "ordinal"
    assert bare.predictor_.target.classes == with_y.predictor_.target.classes == ("place 0", "place 1", "place 2")
    np.testing.assert_array_equal(bare.predict_proba(cases), with_y.predict_proba(cases))
    np.testing.assert_array_equal(bare.classes_, ["place 0", "place 1", "place 2"])
    np.testing.assert_array_equal(with_y.classes_, [0, 1, 2])
    assert bare.score(cases) == with_y.score(cases) == with_y.score(cases, cases.targets)
    named = FewLabelClassifier(tiny_backbone(), **LINEAR).fit(cases, np.array(["c", "a", "b"])[cases.targets])
    assert named.predictor_.target.task.name == "multiclass" and named.predictor_.target.classes == ("a", "b", "c")
    subjects = np.repeat(np.arange(4), 6)
    few = FewLabelClassifier(tiny_backbone(), **LINEAR).fit(replace(cases, subjects=subjects))
    assert few.record_.selection.startswith("4-fold")


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        (FewLabelRegressor, "binary", {}, "FewLabelClassifier learns them"),
        (FewLabelClassifier, "regression", {}, "FewLabelRegressor learns them"),
        (FewLabelClassifier, "binary", {"task": "ordinal"}, "a binary task, and ordinal was asked for"),
        (FewLabelRegressor, "regression", {"task": "binary"}, "a regressor learns numbers"),
    ],
)
def test_a_task_that_does_not_fit_the_cases_is_refused(kind: type, name: str, options: dict, message: str) -> None:
    with pytest.raises(MedformerError, match=message):
        kind(tiny_backbone(), **options).fit(of_target(name, 8, side=8))


@pytest.mark.slow
def test_numbers_are_told_in_their_units_with_intervals() -> None:
    given, new = of_target("regression", 40, seed=1), of_target("regression", 30, seed=2)
    model = FewLabelRegressor(tiny_backbone()).fit(given.images, given.targets)
    assert model.predict(new).shape == (30,)
    assert model.score(new) > 0.4 and model.score(new, new.targets) == pytest.approx(model.score(new))
    said = model.told(new)
    low, high = said.intervals[:, 0].T
    assert ((low < new.targets) & (new.targets < high)).mean() > 0.7
    assert said.sets is None and said.abstains is None and not hasattr(model, "classes_")
    two = np.stack([given.targets, -given.targets], axis=1)
    assert FewLabelRegressor(tiny_backbone()).fit(given.images, two).predict(new).shape == (30, 2)


SEEN = [
    ("a volume where planes were", solid_blobs(2), "a volume; the classifier was fitted on planes"),
    ("three channels", blobs(2, channels=3), "3 channels; the classifier was fitted on images of 1"),
    ("nothing", replace(blobs(2), images=np.zeros((2, 1, 16, 16), np.uint8)), "every value is 0; no image"),
    ("one value", replace(blobs(2), images=np.full((2, 1, 16, 16), 77, np.uint8)), "every value is 77"),
    (
        "a scale from 0 to 1",
        replace(blobs(2), images=(blobs(2).images > 100).astype(np.uint8)),
        "no value is above 1, on a scale to 255; the darkest image the classifier was fitted on reached",
    ),
    ("unknown spacing", replace(blobs(2), spacing_mm=None), "the distance of voxels is not known"),
]


@pytest.fixture(scope="module")
def of_spaced() -> FewLabelClassifier:
    given = replace(blobs(16, seed=1), spacing_mm=np.full((16, 2), 1.5))
    return FewLabelClassifier(tiny_backbone(), **LINEAR).fit(given)


@pytest.mark.parametrize(("what", "cases", "message"), SEEN, ids=[what for what, _, _ in SEEN])
def test_what_is_not_like_what_was_seen_is_refused_in_one_line(
    what: str, cases: Cases, message: str, of_spaced: FewLabelClassifier
) -> None:
    if what != "unknown spacing":
        cases = replace(cases, spacing_mm=np.full((2, cases.images.ndim - 2), 1.5))
    with pytest.raises(DataError, match=re.escape(f"blobs: blob-0000: {message}")) as caught:
        of_spaced.predict_proba(cases)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=re.escape(f"X: image 0: {message}")):
        of_spaced.predict(cases.images, cases.spacing_mm)


def test_of_many_the_image_that_does_not_fit_is_named(of_spaced: FewLabelClassifier) -> None:
    images = blobs(9, seed=3).images.copy()
    images[6] = 0
    cases = replace(blobs(9), images=images, spacing_mm=np.full((9, 2), 1.5))
    with pytest.raises(DataError, match="blobs: blob-0006: every value is 0"):
        of_spaced.told(cases)
    assert len(of_spaced.predict(cases[[0, 1, 5]])) == 3


@pytest.mark.parametrize(("head", "strategy"), WAYS[:3])
def test_grey_images_are_brought_to_the_colours_that_were_seen(head: str, strategy: str) -> None:
    given = blobs(16, seed=1, channels=3)
    model = FewLabelClassifier(tiny_backbone(), head=head, strategy=strategy, max_steps=3).fit(given)
    grey = blobs(6, seed=2)
    colour = replace(grey, images=np.repeat(grey.images, 3, axis=1))
    np.testing.assert_array_equal(model.predict_proba(grey), model.predict_proba(colour))
    mixed = Reader([*studies_of(grey)[:3], *studies_of(colour)[3:]]).cases(grey)
    np.testing.assert_allclose(model.predict_proba(mixed), model.predict_proba(colour), atol=1e-6)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("strategy", ["two_stage"])
def test_two_stages_begin_at_the_linear_optimum(name: str, strategy: str) -> None:
    given, new = of_target(name, 30, seed=1), of_target(name, 20, seed=2)
    kind = FewLabelRegressor if name == "regression" else FewLabelClassifier
    # A rate so small that no weight changes in single precision.
    still = {"max_steps": 1, "learning_rate": 1e-20, "weight_decay": 0.0, "calibrate": False, "augmentation": False}
    for reads in ("embedding", "auto") if name in ("binary", "regression") else ("mean_spread",):
        options = {"head_options": {"reads": reads}}
        begun = kind(tiny_backbone(), strategy=strategy, **options, **still).fit(given)
        first = begun.record_.chosen["first"]
        (read,) = first["strength"]
        frozen = kind(tiny_backbone(), calibrate=False, head_options={"reads": read}).fit(given)
        assert frozen.record_.chosen["strength"] == first["strength"]
        np.testing.assert_allclose(
            begun.predictor_.predict_proba(new), frozen.predictor_.predict_proba(new), rtol=2e-4, atol=2e-4
        )


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_a_head_that_is_fitted_first_sees_its_own_rows_alone(name: str, head: str) -> None:
    cases = of_target(name, 30, seed=1)
    labels, target = cases.known_labels, cases.target.fitted_to(cases.known_labels)
    rows, held = np.arange(20), np.arange(20, 30)
    backbone, plan = tiny_backbone().eval(), Plan(head=head, strategy="two_stage", scored=False)
    weights, said = [], []
    for order in (held, held[::-1]):
        mixed = np.concatenate([labels[rows], labels[order]])
        given = Given(cases, mixed, target, None)
        first = HeadFirst(backbone, given, plan)
        readout = new_readout(backbone, given, plan, 0, first.head_options(rows))
        with seeded(0):
            first.fit(readout, rows, Schedule(5, 1e-2), 0)
        weights.append(copy.deepcopy(readout.state_dict()))
        said.append(first.chosen(rows))
        before = new_readout(backbone, given, plan, 0, first.head_options(rows)).state_dict()
        assert any(not torch.equal(before[key], weights[-1][key]) for key in before)
    assert not np.array_equal(labels[held], labels[held[::-1]])
    assert said[0] == said[1]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": 0.2}, "mixup 0.2 is for training by gradient"),
        ({"loss": "focal"}, "loss 'focal' is for training by gradient"),
        ({"mc_dropout": 4}, "mc_dropout 4 is for training by gradient"),
        ({"head": "attention", "mc_dropout": 4}, "the dropout of the head, which is 0"),
        ({"strategy": "full", "head_options": {"reads": "vote"}}, "reads 'vote' is for frozen features"),
        ({"ensemble": "seeds"}, "is the same for all seeds"),
        ({"ensemble": "fold"}, "ensemble is one of .*did you mean 'folds'"),
        ({"ensemble": "snapshots", "head": "attention", "max_steps": 3}, "5 snapshots need at least as many steps"),
        ({"coverage": 1.0}, "coverage is a share between 0 and 1"),
        ({"mixup": float("nan")}, "mixup is 0 or above"),
        ({"stepper": "plian"}, "did you mean 'plain'"),
        ({"head_options": {"raeds": "mean"}}, "raeds"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FewLabelClassifier(tiny_backbone(), **options).fit(blobs(8))
