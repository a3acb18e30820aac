"""Networks of others, and images that are read in windows: what is explained, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError
from finetune.classifier.estimator import FewLabelClassifier
from finetune.explain.gradients import outputs
from finetune.explain.question import Question
from finetune.explain.randomised import cascade
from finetune.explain.space import of_tokens
from tests.finetune.explain.test_methods import check_whole, explained
from tests.finetune.samples import blobs
from tests.pretrain.foreign_samples import in_own_range, made, stock

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
    with pytest.raises(ConfigError, match="method rollout asks the tokens that the latents of a Medformer read, and"):
        explained(model, cases, "rollout")


def linear(family: str, **kwargs: Any) -> FewLabelClassifier:
    """A linear head of the embedding."""
    return FewLabelClassifier(made(family, **kwargs), head_options={"reads": "embedding"}, calibrate=False)


@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_grad_cam_of_a_convolutional_network_is_that_of_the_paper(family: str) -> None:
    """By hand: gradients of the last feature map of timm's own model, each channel by their mean over places."""
    cases = blobs(12, side=64)
    model = linear(family).fit(cases)
    (member,) = model.predictor_.members
    network = stock(member.backbone)
    said = explained(model, cases, "grad_cam", case=1, weights="mean", positive=False)
    (image,) = cases.studies_of(1)[0].images.values()
    features = network.forward_features(in_own_range(torch.from_numpy(image.pixels)[None] / 127.5 - 1, network))
    features = features.detach().requires_grad_()
    pooled = network.forward_head(features, pre_logits=True)
    question = Question(member, cases.studies_of(1), 0, model.predictor_.temperature)
    (gradient,) = [each.by_embedding_D for each in outputs(question)]
    torch.testing.assert_close(question.features[0].embedding_D, pooled.detach()[0], rtol=1e-4, atol=1e-5)
    (by_features,) = torch.autograd.grad((pooled[0] * gradient).sum(), features)
    alpha = by_features.mean(dim=(2, 3), keepdim=True)
    expected = (alpha * (features - features.mean(dim=(2, 3), keepdim=True))).sum(dim=1)[0].detach().numpy()
    np.testing.assert_allclose(said.maps[0].values, expected, rtol=1e-3, atol=1e-6 + 1e-3 * np.abs(expected).max())
    assert np.ptp(expected) > 0


def test_grad_cam_of_a_class_token_is_refused_for_tokens_beside_it_have_no_gradient() -> None:
    cases = blobs(8, side=28)
    with pytest.raises(ConfigError, match="the embedding of vit_tiny_patch16_224 is not made of the tokens"):
        explained(linear("vit").fit(cases), cases, "grad_cam")
    with pytest.raises(ConfigError, match="tokens of its last layer, which have no gradient; use occlusion$"):
        explained(linear("vit").fit(cases), cases, "integrated_gradients")
    model = linear("vit", global_pool="avg").fit(cases)
    check_whole(explained(model, cases, "grad_cam", positive=False), cases)
    check_whole(explained(model, cases, "integrated_gradients", steps=2), cases)


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
    for name in ("rollout", "grad_cam", "integrated_gradients"):
        with pytest.raises(ConfigError, match="larger than the window in which the classifier reads images; occlusion"):
            explained(model, cases, name)


def test_a_grid_of_one_cell_and_a_block_as_large_as_the_image_are_refused() -> None:
    cases = blobs(12, side=28)
    model = linear("resnet").fit(cases)
    with pytest.raises(ConfigError, match="grad_cam: the network sees such an image as a single cell; use occlusion"):
        explained(model, cases, "grad_cam")
    with pytest.raises(ConfigError, match="a block of 28 covers the whole image of 28x28; take a smaller one"):
        explained(model, cases, "occlusion", block=28)
