"""Classifiers fitted to one site for another: what alignment does, what it leaves as it is, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, DataError
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.classifier.site import Site, joined
from finetune.config import FinetuneConfig
from finetune.scores.metrics import auc
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, of_target, seeing_backbone, solid_blobs, tiny_backbone

QUICK: dict[str, Any] = {"max_steps": 6, "learning_rate": 0.003, "batch_size": 8, "calibrate": False}


def elsewhere(cases: Cases, seed: int = 0) -> Cases:
    """The same kind of images from a machine with less contrast and a brighter ground."""
    generator = np.random.default_rng(seed)
    images = 110 + 0.3 * cases.images + generator.normal(scale=4, size=cases.images.shape)
    return replace(cases, images=images.clip(0, 255).astype(np.uint8), rows=None)


def classifier(**options: Any) -> FewLabelClassifier:
    return FewLabelClassifier(tiny_backbone(), **options)


@pytest.mark.parametrize("name", ["coral", "adversarial"])
@pytest.mark.parametrize("strategy", ["full", "low_rank", "two_stage", "selective"])
def test_a_trained_network_is_aligned_and_a_weight_of_0_is_the_plain_fit_bit_for_bit(name: str, strategy: str) -> None:
    given, target = blobs(12), elsewhere(blobs(20, seed=5))
    plain = classifier(strategy=strategy, **QUICK).fit(given).predict_proba(target)
    nothing = classifier(strategy=strategy, alignment={"name": name, "weight": 0}, **QUICK)
    np.testing.assert_array_equal(nothing.fit(given, target_data=target).predict_proba(target), plain)
    aligned = classifier(strategy=strategy, alignment={"name": name, "weight": 5}, **QUICK)
    assert np.abs(aligned.fit(given, target_data=target).predict_proba(target) - plain).max() > 1e-6
    record = aligned.record_
    assert (record.target_images, record.target_labelled, record.labelled_images) == (20, 0, 12)
    assert record.alignment == {"name": name, "weight": 5} and np.isfinite(record.chosen["distance_of_sites"])


def test_a_weight_of_0_leaves_a_frozen_fit_as_it_is() -> None:
    given, target = blobs(12), elsewhere(blobs(20, seed=5))
    plain = classifier(calibrate=False).fit(given).predict_proba(target)
    nothing = classifier(calibrate=False, alignment={"name": "coral", "weight": 0}).fit(given, target_data=target)
    np.testing.assert_array_equal(nothing.predict_proba(target), plain)


def test_the_closed_form_helps_at_the_other_site() -> None:
    given, target, test = blobs(60), elsewhere(blobs(80, seed=5)), elsewhere(blobs(80, seed=6), seed=1)
    found = {}
    for name, alignment in (("plain", None), ("coral", {"name": "coral"})):
        model = FewLabelClassifier(seeing_backbone(), head_options={"reads": "mean_spread"}, alignment=alignment)
        model.fit(given, target_data=None if alignment is None else target)
        found[name] = model.score(test)
    assert found["coral"] > 0.75 and found["coral"] > found["plain"] + 0.2, found


def test_deep_coral_helps_at_the_other_site_and_costs_nothing_at_home() -> None:
    """Three seeds of the data and of the head; of the plain fits some know the other site and some guess."""
    schedule = {"max_steps": 60, "learning_rate": 3e-3, "backbone_rate": 3e-3, "layer_decay": 1.0, "batch_size": 16}
    found: dict[str, list[float]] = {}
    for seed, (name, alignment) in product(range(3), (("plain", None), ("coral", {"name": "coral"}))):
        target = elsewhere(blobs(80, seed=5 + seed))
        model = FewLabelClassifier(
            seeing_backbone(), strategy="full", head_options={"reads": "mean"}, alignment=alignment, calibrate=False,
            seed=seed, **schedule,
        )  # fmt: skip
        model.fit(blobs(60, seed=seed), target_data=None if alignment is None else target)
        found.setdefault(name, []).append(model.score(elsewhere(blobs(80, seed=6 + seed), seed=1)))
        found.setdefault(f"{name} at home", []).append(model.score(blobs(80, seed=20)))
    means = {name: np.mean(scores) for name, scores in found.items()}
    assert means["coral"] > 0.9 and means["coral"] > means["plain"] + 0.2, found
    assert means["coral at home"] > 0.95, found


def test_few_labelled_cases_of_the_target_site_are_learned_from_and_counted(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle", tiny_backbone(), "medformer_nano", TINY, {}, {})
    given, target = blobs(12), elsewhere(blobs(20, seed=5))
    site = Site(target[6:], target[:6])
    alone = FewLabelClassifier(bundle).fit(given, target_data=Site(None, target[:6]))
    assert (alone.record_.labelled_images, alone.record_.target_labelled, alone.record_.target_images) == (18, 6, 0)
    same = FewLabelClassifier(bundle).fit(joined(given, target[:6]))
    np.testing.assert_array_equal(same.predict_proba(target), alone.predict_proba(target))
    both = FewLabelClassifier(bundle, alignment={"name": "coral"}).fit(given, target_data=site)
    assert (both.record_.target_labelled, both.record_.target_images) == (6, 14)
    both.save(tmp_path / "saved")
    again = FewLabelClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(target), both.predict_proba(target))
    assert again.record_ == both.record_ and again.alignment == {"name": "coral"}


def test_target_cases_that_are_labelled_ones_of_the_source_or_of_their_subjects_are_left_out() -> None:
    given = replace(blobs(12), subjects=np.array([f"s{number}" for number in range(12)]))
    target = replace(elsewhere(blobs(20, seed=5)), subjects=np.array([f"s{number}" for number in range(10, 30)]))
    model = classifier(alignment={"name": "coral"}).fit(given, target_data=target)
    assert (model.record_.target_images, model.record_.target_left_out) == (18, 2)


def test_subjects_of_one_name_are_one_and_numbers_of_two_readings_are_not() -> None:
    names = replace(blobs(4), subjects=np.array(["a", "b", "c", "d"]))
    numbers = replace(blobs(4, seed=1), subjects=np.arange(4))
    assert len(set(joined(names, replace(names, images=numbers.images)).subjects)) == 4
    assert len(set(joined(replace(names, subjects=np.arange(4)), numbers).subjects)) == 8
    assert joined(blobs(4), blobs(4, seed=1)).subjects is None


def test_volumes_are_aligned_too() -> None:
    given = solid_blobs(10)
    target = replace(given, images=(100 + given.images // 3).astype(np.uint8), rows=None)
    model = classifier(strategy="full", alignment={"name": "coral"}, **QUICK).fit(given, target_data=target)
    assert np.isfinite(model.record_.chosen["distance_of_sites"])
    assert np.isfinite(auc(target.known_labels, model.predict_proba(target), target.task))


def test_what_cannot_be_aligned_is_one_message_each() -> None:
    given, target = blobs(8), elsewhere(blobs(10, seed=5))
    coral = {"alignment": {"name": "coral"}}
    for message, options, data in (
        ("needs images of the target site, and none are given", coral, None),
        ("none of them has a label, and without an alignment nothing uses them", {}, target),
        ("unknown alignment 'corla'; did you mean 'coral'", {"alignment": {"name": "corla"}}, target),
        ("expected a name, one of adversarial, coral", {"alignment": {"weight": 1}}, target),
        ("weight.*greater than or equal to 0", {"alignment": {"name": "coral", "weight": -1}}, target),
        ("unknown key 'hiden'", {"alignment": {"name": "adversarial", "hiden": 3}, "strategy": "full"}, target),
        ("adversarial moves the backbone, and strategy frozen", {"alignment": {"name": "adversarial"}}, target),
        ("is for head linear", {**coral, "head": "attention"}, target),
        ("reads .*, not raw", {**coral, "head_options": {"reads": "raw"}}, target),
        ("is for stepper plain", {**coral, "strategy": "full", "stepper": "dba"}, target),
        ("leave mixup out", {**coral, "strategy": "full", "mixup": 0.2}, target),
        ("batch_size is 2 or more", {**coral, "strategy": "full", "batch_size": 1}, target),
    ):
        with pytest.raises(ConfigError, match=message):
            classifier(**options).fit(given, target_data=data)
    for message, data in (
        ("target site: .*a volume; the classifier was fitted on planes", solid_blobs(6)),
        ("target site: .*3 channels; the classifier was fitted on images of 1", blobs(6, channels=3)),
        ("each of its 8 unlabelled cases is labelled or held out", given),
        ("1 images of the target site", target[:1]),
        ("labels of a multiclass task .* the source site has a binary task", Site(target, of_target("multiclass"))),
    ):
        with pytest.raises(DataError, match=message):
            classifier(**coral).fit(given, target_data=data)
    with pytest.raises(ConfigError, match="target_csv is the table of target_data"):
        parse(FinetuneConfig, {"model": "medformer_nano", "data": "x", "target_csv": "y"}, "document")
