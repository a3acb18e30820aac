from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from data_shards.support.errors import CheckpointError, ConfigError, DataError, MedformerError
from finetune.backbones import open_backbone
from finetune.estimator import FewLabelClassifier
from finetune.schedules import SCHEDULES
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone

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
        classifier = FewLabelClassifier(tiny_backbone(), head=head, strategy=strategy, backbone_rate=1e-3, **QUICK)
        return classifier.fit(given.images, given.targets)

    first, second = fitted(), fitted()
    assert first.score(test.images, test.targets) > 0.8
    np.testing.assert_array_equal(first.predict_proba(test.images), second.predict_proba(test.images))
    assert first.record_ == second.record_


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_a_saved_classifier_predicts_the_same_bits(head: str, strategy: str, bundle: Path, tmp_path: Path) -> None:
    given, test = blobs(24, 3, seed=1), blobs(12, 3, seed=2)
    names = np.array(["adenoma", "benign", "cyst"])
    classifier = FewLabelClassifier(bundle, head=head, strategy=strategy, **QUICK)
    classifier.fit(given.images, names[given.targets])
    classifier.save(tmp_path / "classifier")
    loaded = FewLabelClassifier.load(tmp_path / "classifier")
    np.testing.assert_array_equal(loaded.predict_proba(test.images), classifier.predict_proba(test.images))
    np.testing.assert_array_equal(loaded.predict(test.images), classifier.predict(test.images))
    assert loaded.record_.given_sha256 == classifier.record_.given_sha256
    assert {path.suffix for path in (tmp_path / "classifier").rglob("*") if path.is_file()} == {
        ".json",
        ".md",
        ".safetensors",
    }
    with pytest.raises(MedformerError, match="exists already"):
        classifier.save(tmp_path / "classifier")


def test_scikit_learn_clones_it_and_cross_validates_it() -> None:
    given = blobs(30, seed=1)
    classifier = FewLabelClassifier(tiny_backbone(), seed=3, class_weight=None)
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
    classifier = FewLabelClassifier(tiny_backbone())
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
    loaded = FewLabelClassifier.load(folder).set_params(strategy="frozen")
    leaking = FewLabelClassifier(loaded.predictor_.backbone)
    found, leaked, fresh = (
        cross_val_score(each, images, labels, cv=4) for each in (loaded, leaking, FewLabelClassifier(bundle))
    )
    np.testing.assert_array_equal(found, fresh)
    assert found.mean() < 0.75 < 0.95 < leaked.mean()  # chance is a half


def test_a_loaded_classifier_whose_bundle_is_gone_or_changed_predicts_but_is_not_fitted_again(
    memorised: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    _, images, labels = memorised
    home = save_bundle(tmp_path / "home", tiny_backbone(), "medformer_nano", TINY, {}, {})
    FewLabelClassifier(home).fit(images, labels).save(tmp_path / "saved")
    loaded = FewLabelClassifier.load(tmp_path / "saved")
    save_bundle(home, tiny_backbone(1), "medformer_nano", TINY, {}, {})
    with pytest.raises(
        ConfigError, match=r"home: the model bundle .* has other weights; .*set_params\(backbone="
    ) as no:
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
    record = FewLabelClassifier(tiny_backbone()).fit(given.images, given.targets, subjects).record_
    assert record.selection == "carved fifth of the given labels"
    few = FewLabelClassifier(tiny_backbone()).fit(given.images[:12], given.targets[:12], subjects[:12]).record_
    assert few.selection == "4-fold cross-validation within the given labels"


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
    frozen = FewLabelClassifier(mine).fit(given.images, given.targets).predictor_.backbone.state_dict()
    full = FewLabelClassifier(mine, strategy="full", **QUICK).fit(given.images, given.targets)
    moved = full.predictor_.backbone.state_dict()
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
    record = FewLabelClassifier(tiny_backbone()).fit(given.images, given.targets, index_sha256="abc").record_
    assert (record.labelled_images, record.distinct_labelled_images, record.index_sha256) == (42, 40, "abc")
    assert record.per_class == {"0": 21, "1": 21}
    assert record.selection == "carved fifth of the given labels"
    few = FewLabelClassifier(tiny_backbone()).fit(pool.images[:8], pool.targets[:8]).record_
    assert few.selection == "4-fold cross-validation within the given labels"
    quick = {"strategy": "full", "max_steps": 4, "learning_rate": 1e-3}
    full = FewLabelClassifier(tiny_backbone(), **quick).fit(pool.images[:8], pool.targets[:8])
    assert full.record_.selection.startswith("none") and full.record_.chosen["steps"] == 4
    many = blobs(100, seed=2, side=8)
    full = FewLabelClassifier(tiny_backbone(), **quick).fit(many.images, many.targets)
    assert full.record_.selection == "schedule and number of steps by a carved part of the given labels"


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
        FewLabelClassifier("medformer_nano", seed=seed).fit(given.images, given.targets).predict_proba(given.images)
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


def test_a_damaged_classifier_is_refused(bundle: Path, tmp_path: Path) -> None:
    given = blobs(12, seed=1)
    folder = tmp_path / "classifier"
    FewLabelClassifier(bundle).fit(given.images, given.targets).save(folder)
    document = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**document, "version": 1}))
    with pytest.raises(CheckpointError, match=r"version 2, found medformer-classifier of version 1; fit it again"):
        FewLabelClassifier.load(folder)
    (folder / "classifier.json").write_text(json.dumps(document))
    (folder / "head.safetensors").write_bytes((folder / "head.safetensors").read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        FewLabelClassifier.load(folder)
    (folder / "classifier.json").unlink()
    with pytest.raises(CheckpointError, match=r"classifier\.json"):
        FewLabelClassifier.load(folder)


@pytest.fixture(scope="module")
def of_three(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved classifiers of three classes, by head."""
    given, home = blobs(24, 3, seed=1), tmp_path_factory.mktemp("three")
    for head in ("linear", "attention"):
        FewLabelClassifier(bundle, head=head, max_steps=2).fit(given.images, given.targets).save(home / head)
    return {head: home / head for head in ("linear", "attention")}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mean", lambda mean_D: mean_D[:1], "mean: expected finite numbers of shape (32,), found shape (1,)"),
        ("bias", lambda bias_K: bias_K[:1], "bias: expected finite numbers of shape (3,), found shape (1,)"),
        ("weight", lambda weight_KD: weight_KD * np.nan, "weight: expected finite numbers"),
        ("weight", lambda weight_KD: weight_KD[:, :7].contiguous(), "weight: expected finite numbers of shape (3, 32)"),
        ("weight", lambda weight_KD: weight_KD[:2], "weight: expected finite numbers of shape (3, 32)"),
        ("scale", lambda scale_D: scale_D * 0, "scale: expected values above 0"),
        ("strength", lambda strength: strength[:0], "strength: expected finite numbers of shape (1,)"),
        ("bias", lambda bias_K: None, "'bias'"),
    ],
)
def test_a_classifier_whose_numbers_do_not_fit_is_refused(
    of_three: dict[str, Path], tmp_path: Path, name: str, change: Callable, message: str
) -> None:
    folder = shutil.copytree(of_three["linear"], tmp_path / "classifier")
    tensors = load_file(folder / "head.safetensors")
    changed = change(tensors.pop(name))
    save_file(tensors if changed is None else tensors | {name: changed}, folder / "head.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(f"{folder}: not a complete classifier: {message}")):
        FewLabelClassifier.load(folder)


def test_a_network_head_with_nan_weights_is_refused(of_three: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(of_three["attention"], tmp_path / "classifier")
    tensors = load_file(folder / "head.safetensors")
    save_file({name: tensor * np.nan for name, tensor in tensors.items()}, folder / "head.safetensors")
    with pytest.raises(CheckpointError, match="expected finite numbers"):
        FewLabelClassifier.load(folder)


@pytest.mark.parametrize("head", ["linear", "attention"])
@pytest.mark.parametrize(
    "change",
    [
        {"task": "binary"},
        {"task": "regression"},
        {"task": "none"},
        {"classes": [0, 1, 2, 3]},
        {"classes": [0, 1]},
        {"classes": [0, 1, 1]},
        {"classes": [[0], [1, 2]]},
        {"classes": [0, 1, None]},
        {"offset": "x"},
        {"offset": [0.0]},
        {"offset": [0.0, None, 0.0]},
    ],
)
def test_a_document_that_does_not_fit_its_head_is_refused(
    of_three: dict[str, Path], tmp_path: Path, head: str, change: dict
) -> None:
    folder = shutil.copytree(of_three[head], tmp_path / "classifier")
    document = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps(document | change))
    with pytest.raises(CheckpointError, match="not a complete classifier: ") as caught:
        FewLabelClassifier.load(folder)
    assert "\n" not in str(caught.value)
