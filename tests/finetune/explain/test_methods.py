"""Every method on every head, strategy and kind of case: whole, the same again, and the same whatever is beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_shards.support.errors import ConfigError
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelModel
from finetune.explain import methods
from finetune.explain.asking import CaseMaps, check_method, maps_of, places_of
from finetune.explain.base import CaseMethod
from finetune.explain.methods import create_method
from finetune.fit import room
from finetune.slices import Slices
from finetune.targets import create_target
from tests.finetune.explain.fits import HEADS, SHAPES, STRATEGIES, fitted, made
from tests.finetune.samples import TARGETS, blobs, of_target, solid_blobs

METHODS: dict[str, dict] = {
    "grad_cam": {}, "rollout": {}, "occlusion": {"block": 8, "step": 8}, "integrated_gradients": {"steps": 1},
}  # fmt: skip


def explained(model: FewLabelModel, cases: Cases, name: str, case: int = 1, **options: object) -> CaseMaps:
    method = create_method(name, {**METHODS.get(name, {}), **options})
    assert isinstance(method, CaseMethod)
    check_method(model.predictor_, method)
    (found,) = maps_of(model.predictor_, method, cases, case, [0])
    return found


def check_whole(said: CaseMaps, cases: Cases, case: int = 1) -> None:
    studies = cases.studies_of(case)
    expected = [(number, name) for number, study in enumerate(studies) for name, _ in study.sorted_images]
    assert [(each.study, each.image) for each in said.maps] == expected
    for each in said.maps:
        assert each.on_voxels.shape == studies[each.study].images[each.image].pixels.shape[1:]
        assert np.isfinite(each.values).all()
    assert any(np.ptp(each.values) > 0 for each in said.maps)
    assert np.isfinite(said.evidence)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_every_method_explains_every_head_on_every_kind_of_case(head: str, shape: str) -> None:
    model, cases = made(head, shape)
    for name in METHODS:
        check_whole(
            explained(model, cases, name, positive=False) if name == "grad_cam" else explained(model, cases, name),
            cases,
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(strategy: str) -> None:
    cases = solid_blobs(24)
    model = fitted(cases, strategy=strategy, head="attention", max_steps=4)
    for name in METHODS:
        check_whole(explained(model, cases, name), cases)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target(target: str) -> None:
    cases = of_target(target)
    model = fitted(cases, head="attention", max_steps=4)
    for name in METHODS:
        check_whole(explained(model, cases, name), cases)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", ["mean", "mil", "mil, max"])
def test_instances_of_heads_that_score_tokens(head: str, shape: str) -> None:
    model, cases = made(head, shape)
    check_whole(explained(model, cases, "instances"), cases)


def test_evidence_of_tokens_with_their_weights_is_that_of_the_case() -> None:
    """The pooling is a weighted mean of scores, which for two classes are the log odds."""
    model, cases = made("mil", "bags")
    evidence, weight = (explained(model, cases, "instances", shows=shows) for shows in ("evidence", "weight"))
    total = sum((one.values * other.values).sum() for one, other in zip(evidence.maps, weight.maps, strict=True))
    assert total == pytest.approx(evidence.evidence, rel=1e-3, abs=1e-4)
    assert sum(each.values.sum() for each in weight.maps) == pytest.approx(1, abs=1e-5)


def test_slices_of_volumes_are_explained_as_volumes() -> None:
    cases = solid_blobs(12)
    options = {"head": "mil", "head_options": {"instances": "studies"}, "max_steps": 4}
    model = fitted(cases, slices={"axis": 0, "every": 2}, **options)
    for name in (*METHODS, "instances"):
        said = explained(model, cases, name)
        check_whole(said, cases)
        (found,) = said.maps
        assert found.values.shape[0] == len(Slices(every=2).places(6))
    weights = explained(model, cases, "instances", shows="weight").maps[0].values
    assert weights.shape == (3, 1, 1) and weights.sum() == pytest.approx(1, abs=1e-5)


def test_an_ensemble_has_the_mean_of_the_maps_of_its_members() -> None:
    cases = blobs(12)
    model = fitted(cases, head="attention", ensemble="seeds", members=2, max_steps=3)
    whole = explained(model, cases, "rollout")
    each = []
    for member in model.predictor_.members:
        alone = replace(model.predictor_, members=(member,))
        each.append(next(maps_of(alone, create_method("rollout"), cases, 1, [0])))
    np.testing.assert_allclose(
        whole.maps[0].values, (each[0].maps[0].values + each[1].maps[0].values) / 2, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_same_again_alone_or_among_others_and_in_small_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cases = made("vote", "bags")
    first = explained(model, cases, name, case=3)
    again, alone = explained(model, cases, name, case=3), explained(model, cases[[3]], name, case=0)
    monkeypatch.setattr(room, "BATCH_SIZE", 1)
    small = explained(model, cases, name, case=3)
    for place, each in enumerate(first.maps):
        np.testing.assert_array_equal(each.values, again.maps[place].values)
        for other in (alone, small):
            scale = np.abs(each.values).max()
            np.testing.assert_allclose(each.values, other.maps[place].values, rtol=1e-3, atol=1e-3 * scale)


def test_the_network_is_left_as_it_was() -> None:
    cases = blobs(12)
    model = fitted(cases, head="attention", max_steps=3)
    backbone = model.predictor_.members[0].backbone
    before, modes = {k: v.clone() for k, v in backbone.state_dict().items()}, [m.training for m in backbone.modules()]
    for name in METHODS:
        explained(model, cases, name)
    assert all((before[name] == value).all() for name, value in backbone.state_dict().items())
    assert modes == [module.training for module in backbone.modules()]
    assert not backbone.adapter._forward_hooks
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_raw_pixels_are_explained_by_occlusion_alone() -> None:
    model, _ = made("raw", "planes")
    check_whole(explained(model, blobs(12), "occlusion"), blobs(12))
    for name in ("grad_cam", "rollout", "integrated_gradients"):
        with pytest.raises(ConfigError, match=f"method {name}: head linear reads raw pixels alone.*try occlusion"):
            explained(model, blobs(12), name)


def test_what_a_method_cannot_explain_is_refused() -> None:
    embedding, attention, top = (made(head, "planes")[0] for head in ("embedding", "attention", "mil, max"))
    with pytest.raises(ConfigError, match="layer dense, and the head reads no dense tokens; use layer input"):
        explained(embedding, blobs(12), "grad_cam", layer="dense")
    with pytest.raises(ConfigError, match="head attention says nothing of instances"):
        explained(attention, blobs(12), "instances")
    with pytest.raises(ConfigError, match="pooling max has no weights; show evidence"):
        explained(top, blobs(12), "instances", shows="weight")
    numbers = fitted(of_target("regression"))
    with pytest.raises(ConfigError, match="leaves hold probabilities of classes, and the target is regression"):
        create_method("soft_tree").check(numbers.predictor_.members[0])


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert {"grad_cam", "instances", "occlusion", "rollout", "soft_tree"} <= set(methods.METHODS)
    with pytest.raises(ConfigError, match="unknown method 'gradcam'; did you mean 'grad_cam'"):
        create_method("gradcam")
    with pytest.raises(ConfigError, match="method occlusion: unknown key 'blok'; did you mean 'block'"):
        methods.METHODS.config("occlusion", {"blok": 3})
    target = create_target("multiclass", ["cyst", "tumour", "none"])
    with pytest.raises(ConfigError, match="unknown class 'tumor'; did you mean 'tumour'"):
        places_of(target, ["tumor"], np.zeros(3))


def test_which_classes_are_explained() -> None:
    target = create_target("multiclass", ["cyst", "tumour", "none"])
    assert places_of(target, ["predicted"], np.array([0.1, 0.7, 0.2])) == [1]
    assert places_of(target, ["all"], np.array([0.1, 0.7, 0.2])) == [0, 1, 2]
    assert places_of(target, ["none", "cyst", "none"], np.zeros(3)) == [2, 0]
    labels = create_target("multilabel", ["a", "b", "c"])
    assert places_of(labels, ["predicted"], np.array([0.6, 0.2, 0.9])) == [0, 2]
    assert places_of(labels, ["predicted"], np.array([0.1, 0.4, 0.2])) == [1]
    assert places_of(create_target("regression", ["ml"]), ["predicted"], np.array([3.0])) == [0]
