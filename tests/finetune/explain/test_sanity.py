"""The randomisation check tells maps of the model from maps of the image."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from data_shards.support.errors import DataError
from finetune.explain.base import CaseMethod
from finetune.explain.intervals import mean_interval
from finetune.explain.methods import create_method
from finetune.explain.question import Question
from finetune.explain.randomised import cascade, layers
from finetune.explain.sanity import check_sanity, spearman, ssim
from finetune.explain.space import CellMap
from tests.finetune.explain.fits import HEADS, fitted, made
from tests.finetune.samples import blobs, tiny_backbone


class Edges(CaseMethod):
    """The length of the gradient of the image: it does not ask the model."""

    name, unit = "edges", "grey levels"

    def maps(self, question: Question) -> list[CellMap]:
        found = []
        for number, study in enumerate(question.studies):
            for name, image in study.sorted_images:
                values = np.sqrt(sum(each**2 for each in np.gradient(image.pixels[0].astype(np.float32))))
                axes = values.ndim
                found.append(CellMap(number, name, values.shape, values, (0.0,) * axes, (1.0,) * axes))
        return found


@pytest.mark.parametrize("name", ["grad_cam", "rollout", "occlusion"])
@pytest.mark.slow
def test_a_map_of_a_trained_model_passes_and_one_of_the_image_fails(name: str) -> None:
    cases = blobs(32)
    model = fitted(cases, strategy="full", max_steps=40, head_options={"reads": "mean_spread"})
    some = cases[np.arange(12)]
    places = some.known_labels[:, 0].tolist()
    options = {"positive": False} if name == "grad_cam" else {}
    found = check_sanity(model.predictor_, create_method(name, options), some, places)
    assert [row.layer for row in found.rows] == ["head", "decoder", "blocks.0", "encoder", "adapter"]
    assert found.passes and found.rows[-1].high < 0.5 and "passes" in found.told
    edges = check_sanity(model.predictor_, Edges(None), some, places)
    assert not edges.passes and "fails" in edges.told
    assert all(row.spearman == pytest.approx(1) and row.ssim == pytest.approx(1) for row in edges.rows)
    again = check_sanity(model.predictor_, create_method(name, options), some, places)
    assert again == found


def test_a_single_case_shows_nothing() -> None:
    model, cases = made("mean", "planes")
    found = check_sanity(model.predictor_, create_method("grad_cam"), cases[[0]], [0])
    assert not found.passes and (found.rows[-1].low, found.rows[-1].high) == (-1, 1)


def test_maps_without_a_place_cannot_be_compared() -> None:
    class Nothing(Edges):
        name = "nothing"

        def maps(self, question: Question) -> list[CellMap]:
            (found,) = super().maps(question)
            return [CellMap(0, "image", found.shape, np.ones((4, 4), np.float32), (0.0, 0.0), (1.0, 1.0))]

    model, _ = made("mean", "planes")
    with pytest.raises(DataError, match="no map of method nothing differs from place to place"):
        check_sanity(model.predictor_, Nothing(None), blobs(12), [0] * 12)


@pytest.mark.parametrize("head", HEADS)
def test_layers_are_randomised_from_the_output_down_and_the_model_stays(head: str) -> None:
    member = made(head, "planes")[0].predictor_.members[0]
    before = copy.deepcopy(member.backbone.state_dict())
    changed: set[str] = set()
    for name, now in cascade(member, 0):
        here = {key for key, value in now.backbone.state_dict().items() if (value != before[key]).any()}
        assert changed <= here
        fresh = {key.split(".")[0] for key in here - changed}
        if name != "head":
            assert name.split(".")[0] in fresh
        changed = here
        # As many weights of each size as before.
        for key, value in now.backbone.state_dict().items():
            torch.testing.assert_close(value.flatten().sort().values, before[key].flatten().sort().values)
    assert all((before[key] == value).all() for key, value in member.backbone.state_dict().items())


def test_the_layers_are_all_there_is() -> None:
    backbone = tiny_backbone()
    names, groups = zip(*layers(backbone), strict=True)
    assert names == ("decoder", "blocks.0", "encoder", "adapter")
    assert sum(map(len, groups)) == len(list(backbone.parameters()))


def test_rank_correlation_and_structural_similarity() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(9, 11)), generator.normal(size=(9, 11))
    assert spearman(one, np.exp(one)) == pytest.approx(1) and spearman(one, -one) == pytest.approx(-1)
    assert spearman(one, np.zeros_like(one)) == 0
    assert ssim(one, one) == pytest.approx(1) and ssim(one, 3 * one + 2) == pytest.approx(1)
    first, second = ((each - each.min()) / np.ptp(each) for each in (one, other))
    values = []
    for row in range(9 - 6):
        for column in range(11 - 6):
            x, y = first[row : row + 7, column : column + 7].ravel(), second[row : row + 7, column : column + 7].ravel()
            covariance = np.cov(x, y)
            top = (2 * x.mean() * y.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
            values.append(top / ((x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (covariance[0, 0] + covariance[1, 1] + 9e-4)))
    assert ssim(one, other) == pytest.approx(np.mean(values))


def test_the_interval_of_a_mean_is_that_of_the_subjects() -> None:
    """Of one case to a subject it is the t interval of the mean; of copies of a case the copies add nothing."""
    from scipy.stats import t

    values = np.random.default_rng(1).normal(size=40)
    found = mean_interval(values, np.arange(40), seed=0, replicates=20000)
    half = t.ppf(0.975, 39) * values.std(ddof=1) / 40**0.5
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.estimate == pytest.approx(half, rel=0.03)
    copies = mean_interval(np.repeat(values, 3), np.repeat(np.arange(40), 3), seed=0, replicates=20000)
    assert copies.high == pytest.approx(found.high)
    assert np.isnan(mean_interval(values, np.zeros(40), seed=0).high)
