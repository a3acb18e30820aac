"""Networks of others, and images that are read in windows: what is explained, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError
from finetune.classifier.estimator import FewLabelClassifier
from finetune.explain.randomised import cascade
from finetune.explain.space import of_tokens
from tests.finetune.explain.test_methods import check_whole, explained
from tests.finetune.samples import blobs
from tests.pretrain.foreign_samples import made

QUICK = {"max_steps": 4, "batch_size": 8, "calibrate": False}


@pytest.fixture(scope="module", params=["resnet", "vit"])
def model(request: pytest.FixtureRequest) -> FewLabelClassifier:
    return FewLabelClassifier(made(request.param), head="mil", **QUICK).fit(blobs(16, side=64))


def test_tokens_of_a_network_of_others_are_explained_where_they_lie(model: FewLabelClassifier) -> None:
    cases = blobs(8, seed=1, side=64)
    check_whole(explained(model, cases, "occlusion"), cases)
    check_whole(explained(model, cases, "grad_cam", layer="dense", positive=False), cases)
    check_whole(explained(model, cases, "instances"), cases)
    backbone = model.predictor_.members[0].backbone
    (image,) = cases.studies_of(0)[0].images.values()
    grid = backbone.features(torch.zeros(1, 1, 64, 64), dense=True).grid
    placed = of_tokens(backbone, 0, "image", image, np.arange(np.prod(grid), dtype=np.float32))
    assert placed.values.shape == grid
    for first, step, cells in zip(placed.firsts, placed.steps, grid, strict=True):
        assert first - step / 2 == pytest.approx(-0.5) and first + step * (cells - 0.5) == pytest.approx(63.5)


def test_what_asks_for_latents_is_refused(model: FewLabelClassifier) -> None:
    cases = blobs(8, seed=1, side=64)
    for name in ("rollout", "grad_cam"):
        with pytest.raises(
            ConfigError, match=f"method {name} asks the tokens that the latents of a Medformer read, and"
        ):
            explained(model, cases, name)


def test_layers_of_others_are_randomised_from_the_output_down(model: FewLabelClassifier) -> None:
    member = model.predictor_.members[0]
    names = [name for name, _ in cascade(member, seed=0)]
    order = list(dict.fromkeys(".".join(name.split(".")[:2]) for name, _ in member.backbone.named_parameters()))
    assert names == ["head", *reversed(order)] and len(order) > 2


def test_what_is_read_in_windows_is_explained_by_occlusion_alone() -> None:
    cases = blobs(12)
    model = FewLabelClassifier("medformer_nano", head_options={"reads": "embedding"}, window=8, calibrate=False)
    model.fit(cases)
    check_whole(explained(model, cases, "occlusion"), cases)
    for name in ("rollout", "grad_cam"):
        with pytest.raises(ConfigError, match="larger than the window in which the classifier reads images; occlusion"):
            explained(model, cases, name)
