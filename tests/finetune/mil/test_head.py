from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_shards.support.errors import ConfigError
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.fit.features import features_of, joined
from finetune.fit.learners import CachedLearner
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, create_head
from finetune.heads.mil import MilHead
from finetune.heads.scales import averaged, spread
from finetune.objective import Objective
from finetune.strategies import Rates
from finetune.targets import create_target
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, Reader, blobs, of_target, studies_of, tiny_backbone

POOLINGS = ("attention", "log_sum_exp", "max", "max_min", "mean", "top_bottom")
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


def tokens_of(
    cases: int, tokens: int, dim: int = 8, seed: int = 0, grid: tuple[int, ...] | None = None
) -> CaseFeatures:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(cases, tokens, dim, generator=generator, dtype=torch.float64)
    return CaseFeatures(values.mean(dim=1), values, grid=grid)


def mil(pooling: str, outputs: int = 3, dim: int = 8, **options: object) -> MilHead:
    torch.manual_seed(0)
    head = create_head("mil", dim, outputs, {"pooling": pooling, "hidden": 6, **options}).double().eval()
    for scorer in head.scorers:
        torch.nn.init.normal_(scorer.linear.weight)
    assert isinstance(head, MilHead)
    return head


@every_pooling
def test_padding_and_order_change_nothing(pooling: str) -> None:
    head = mil(pooling)
    few, many = tokens_of(2, 5, seed=1), tokens_of(3, 11, seed=2)
    torch.testing.assert_close(head(joined([few, many])), torch.cat([head(few), head(many)]))
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(head(replace(many, tokens_BTD=many.tokens[:, order])), head(many))


@every_pooling
@pytest.mark.parametrize("scales", [(1,), (1, 2)])
def test_every_weight_gets_gradient_and_is_in_a_group(pooling: str, scales: tuple[int, ...]) -> None:
    head = mil(pooling, scales=scales)
    head(tokens_of(3, 9, grid=(3, 3))).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    grouped = [id(parameter) for group in head.param_groups() for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in head.parameters())


@every_pooling
def test_what_is_said_of_a_case_is_pooled_of_what_is_said_of_its_instances(pooling: str) -> None:
    head = mil(pooling)
    both = joined([tokens_of(2, 5, seed=1), tokens_of(3, 11, seed=2)])
    said = head.instances(both)
    assert said.kind == head.instance_kind == "token" and said.scores_BHO.shape == (5, 11, 3)
    assert torch.equal(said.present_BH, both.mask_BT)
    if said.weights_BH is None:
        found = head.scorers[0].pooling(said.scores_BHO, said.present_BH)
    else:
        torch.testing.assert_close(said.weights_BH.sum(dim=1), torch.ones(5, dtype=torch.float64))
        found = torch.einsum("bh,bho->bo", said.weights_BH, said.scores_BHO)
    torch.testing.assert_close(found, head(both))
    assert (said.weights_BH is not None) == (pooling in ("attention", "mean"))


@every_pooling
def test_studies_are_instances_and_a_case_of_one_has_one(pooling: str) -> None:
    head = mil(pooling, instances="studies")
    assert not head.needs_tokens and head.instance_kind == "study"
    generator = torch.Generator().manual_seed(0)
    studies = torch.randn(2, 4, 8, generator=generator, dtype=torch.float64)
    present = torch.tensor([[True, True, False, False], [True] * 4])
    features = CaseFeatures(studies.mean(dim=1), studies_BSD=studies, present_BS=present)
    alone = CaseFeatures(studies.mean(dim=1)[:1], studies_BSD=studies[:1, :2], present_BS=present[:1, :2])
    torch.testing.assert_close(head(features)[:1], head(alone))
    single = CaseFeatures(studies[:, 0])
    assert head.instances(single).scores_BHO.shape == (2, 1, 3)
    factor = {"max_min": 2.0, "top_bottom": (1 + 0.7) / 2}.get(pooling, 1.0)
    torch.testing.assert_close(head(single), factor * head.instances(single).scores_BHO[:, 0])


@pytest.mark.parametrize(("grid", "factor"), [((4, 6), 2), ((5, 3), 2), ((5, 7), 4), ((3, 4, 5), 2), ((2, 2), 3)])
def test_cells_are_the_means_of_their_tokens(grid: tuple[int, ...], factor: int) -> None:
    tokens = tokens_of(2, 2 * int(np.prod(grid)), dim=3).tokens  # two studies one after the other
    cells, back = averaged(tokens, grid, factor), spread(averaged(tokens, grid, factor), grid, factor)
    maps = tokens.unflatten(1, (2, *grid))
    index = torch.stack(torch.meshgrid(*(torch.arange(length) // factor for length in grid), indexing="ij"), dim=-1)
    for cell in {tuple(each.tolist()) for each in index.flatten(0, -2)}:
        here = (index == torch.tensor(cell)).all(dim=-1)
        expected = maps[:, :, here].mean(dim=2)
        torch.testing.assert_close(
            back.unflatten(1, (2, *grid))[:, :, here], expected[:, :, None].expand(-1, -1, int(here.sum()), -1)
        )
    assert cells.shape[1] == 2 * int(np.prod([-(-length // factor) for length in grid]))


def test_scales_are_mixed_by_their_shares_and_told_in_the_grid_of_the_tokens() -> None:
    head = mil("attention", scales=(1, 2))
    with torch.no_grad():
        head.scale_logits.copy_(torch.tensor([0.3, -0.4]))
    features = tokens_of(2, 15, grid=(3, 5))
    shares = head.scale_logits.softmax(dim=0)
    coarse = tokens_of(2, 15).tokens.unflatten(1, (3, 5)).movedim(-1, 1)
    coarse = F.avg_pool2d(coarse, 2, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)
    each = head.scorers[0](features.tokens, None), head.scorers[1](coarse, None)
    torch.testing.assert_close(head(features), shares[0] * each[0][0] + shares[1] * each[1][0])
    said = head.instances(features)
    assert said.scores_BHO.shape == (2, 15, 3)
    # The last token has a cell of its own, the first shares one with three others.
    torch.testing.assert_close(said.scores_BHO[:, 14], shares[0] * each[0][1][:, 14] + shares[1] * each[1][1][:, 5])
    torch.testing.assert_close(said.weights_BH[:, 0], shares[0] * each[0][2][:, 0] + shares[1] * each[1][2][:, 0] / 4)
    torch.testing.assert_close(said.weights_BH.sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_scales_work_on_bags_of_one_shape_and_are_refused_in_one_line_without_a_grid() -> None:
    head = mil("max", scales=(1, 2))
    both = joined([tokens_of(1, 9, seed=1, grid=(3, 3)), tokens_of(1, 18, seed=2, grid=(3, 3))])
    torch.testing.assert_close(head(both)[:1], head(tokens_of(1, 9, seed=1, grid=(3, 3))))
    with pytest.raises(ConfigError, match="^head mil: scales 1, 2 need one grid of tokens; these cases have images"):
        head(tokens_of(2, 9))
    assert mil("max")(tokens_of(2, 9)).shape == (2, 3)


def test_the_grid_of_a_bag_is_that_of_its_images_where_they_are_alike() -> None:
    pool = blobs(5)
    bags = Reader(studies_of(pool)).cases(pool[:2], np.array([0, 0, 1, 1, 1]))
    found = features_of(tiny_backbone(), bags, dense=True)
    single = features_of(tiny_backbone(), pool, dense=True)
    assert found.grid == single.grid is not None
    torch.testing.assert_close(found.tokens[0, : 2 * single.tokens.shape[1]], single.tokens[:2].flatten(0, 1))


def test_one_token_is_enough_for_every_pooling() -> None:
    for pooling in POOLINGS:
        assert mil(pooling, scales=(1, 2))(tokens_of(2, 1, grid=(1, 1))).isfinite().all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pooling": "maks"}, "head mil: pooling"),
        ({"poling": "max"}, "head mil: unknown key 'poling'; did you mean 'pooling'"),
        ({"instances": "studies", "scales": (1, 2)}, "head mil: scales: scales are of tokens; studies have none"),
        ({"scales": (2, 2)}, "head mil: scales: expected different factors of at least 1"),
        ({"betas": (float("inf"), 0)}, "head mil: betas: expected finite numbers"),
        ({"top": 0}, "head mil: top"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        create_head("mil", 8, 2, options)


TERMS = {"area": 0.5, "sparsity": 1e-2, "ranking": 0.3}


def learner_of(head: MilHead, features: CaseFeatures) -> CachedLearner:
    return CachedLearner(Readout(head, None), features, Rates(0.01, 0.0, 1.0, 0.0))


@pytest.mark.parametrize("above", ["bottom", "negatives"])
def test_terms_are_added_to_the_loss_of_each_case(above: str) -> None:
    labels = np.array([[0], [1], [1], [0]])
    objective = Objective.of(create_target("binary", "ab"), labels, balanced=False, drawn_evenly=False, loss="nll")
    features, rows = tokens_of(4, 6), np.array([3, 1, 2])
    plain, termed = mil("max", 1), mil("max", 1, ranking_above=above, **TERMS)
    termed.load_state_dict(plain.state_dict())
    expected = objective.per_case(learner_of(plain, features).logits(rows, 0), rows)
    torch.testing.assert_close(learner_of(plain, features).losses(objective, rows, 0), expected)
    added = learner_of(termed, features).losses(objective, rows, 0) - expected
    assert added[0] == 0 and (added[1:] > 0).all()  # nothing is asked of the instances of a negative case
    total = torch.zeros(3, dtype=torch.float64)
    for name, weight in TERMS.items():
        one = mil("max", 1, ranking_above=above, **{name: weight})
        one.load_state_dict(plain.state_dict())
        total += learner_of(one, features).losses(objective, rows, 0) - expected
    torch.testing.assert_close(added, total)


def test_terms_are_refused_with_mixtures_and_for_numbers() -> None:
    head = mil("max", 1, **TERMS)
    with pytest.raises(
        ConfigError, match="^head mil: what its options add to the loss is of cases that are not mixed, and mixup"
    ):
        learner_of(head, tokens_of(4, 6)).mixed(np.arange(4), 0, 0.5)
    model = FewLabelRegressor("no such network", head="mil", head_options={"area": 1.0}, max_steps=2)
    with pytest.raises(ConfigError, match="are for classes and labels, not for numbers and grades"):
        model.fit(of_target("regression", 16))
    grades = FewLabelClassifier("no such network", head="mil", head_options={"sparsity": 1.0}, max_steps=2)
    with pytest.raises(ConfigError, match="are for classes and labels, not for numbers and grades"):
        grades.fit(of_target("ordinal", 16))


@pytest.mark.parametrize("strategy", ["frozen", "full"])
@pytest.mark.parametrize("target", ["binary", "multiclass", "multilabel"])
def test_a_fit_with_terms_runs_for_every_target_with_classes(target: str, strategy: str) -> None:
    cases = of_target(target, 16)
    options = {"pooling": "top_bottom", "scales": [1, 2], **TERMS}
    model = FewLabelClassifier(tiny_backbone(), head="mil", head_options=options, strategy=strategy, max_steps=2)
    said = model.fit(cases).predict_proba(cases)
    for case, instances in zip(said, model.instances(cases), strict=True):
        assert instances.probabilities_HC.shape == (16, len(case))
        assert [each.grid for each in instances.maps] == [(4, 4)]


@pytest.mark.parametrize("ensemble", ["none", "seeds"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_saved_classifier_says_the_same_of_cases_and_instances(pooling: str, ensemble: str, tmp_path: Path) -> None:
    save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    cases = blobs(16)
    options = {"pooling": pooling, "scales": [1, 2], "hidden": 8}
    model = FewLabelClassifier(
        tmp_path / "tiny", head="mil", head_options=options, max_steps=4, ensemble=ensemble, members=2
    ).fit(cases)
    model.save(tmp_path / "saved")
    again = FewLabelClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(cases), model.predict_proba(cases))
    for ours, theirs in zip(model.instances(cases), again.instances(cases), strict=True):
        np.testing.assert_array_equal(ours.scores_HO, theirs.scores_HO)
        np.testing.assert_array_equal(ours.probabilities_HC, theirs.probabilities_HC)


def test_a_map_shows_where_the_square_is() -> None:
    train, test = blobs(64), blobs(16, seed=1)
    model = FewLabelClassifier(
        tiny_backbone(), head="mil", head_options={"pooling": "max"}, max_steps=150, learning_rate=0.02
    ).fit(train)
    assert model.score(test) >= 0.9
    found = []
    for case, label in zip(model.instances(test), test.targets, strict=True):
        found.append(np.unravel_index(case.maps[0].of(case.scores_HO)[0].argmax(), case.maps[0].grid))
        np.testing.assert_allclose(case.probabilities_HC.sum(axis=1), 1)
        if label:  # the second class is of a square at the bottom right
            assert min(found[-1]) >= 1
    # The score of a case is that of its highest token, and so is its probability.
    top = [case.probabilities_HC[:, 1].max() for case in model.instances(test)]
    np.testing.assert_allclose(top, model.predict_proba(test)[:, 1], rtol=1e-5)


@pytest.mark.parametrize("reads", ["mean", "embedding"])
@pytest.mark.parametrize("strategy", ["frozen", "two_stage"])
def test_a_linear_head_on_a_mean_tells_of_what_it_is_the_mean_of(reads: str, strategy: str) -> None:
    pool = blobs(30)
    bags = np.repeat(np.arange(12), [2, 3] * 6)
    cases = Reader(studies_of(pool)).cases(pool[:12], bags)
    model = FewLabelClassifier(
        tiny_backbone(),
        head_options={"reads": reads},
        strategy=strategy,
        max_steps=2,
        calibrate=False,
        class_weight=None,
    ).fit(cases)
    for case, size, (_, p) in zip(model.instances(cases), [2, 3] * 6, model.predict_proba(cases), strict=True):
        assert len(case.scores_HO) == size * (16 if reads == "mean" else 1)
        assert case.kind == ("token" if reads == "mean" else "study")
        logit = float(case.weights_H @ case.scores_HO[:, 0])
        assert 1 / (1 + np.exp(-logit)) == pytest.approx(p, abs=1e-5)


def test_heads_without_instances_say_so_before_an_image_is_read() -> None:
    cases = blobs(16)
    for options, told in (
        ({"head": "attention", "max_steps": 2}, "^head attention says nothing of instances; fit with head mil"),
        (
            {"head_options": {"reads": "mean_spread"}},
            "^head linear, which reads mean_spread, says nothing of instances",
        ),
    ):
        model = FewLabelClassifier(tiny_backbone(), **options).fit(cases)
        reader = Reader(studies_of(cases))
        with pytest.raises(ConfigError, match=told):
            model.instances(reader.cases(cases))
        assert sum(reader.read) == 0
