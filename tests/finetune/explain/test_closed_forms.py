"""Where a map can be said in closed form it is that."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError
from finetune.explain.attention import explicit
from finetune.explain.gradients import outputs, passes, tokens_on_the_way
from finetune.explain.methods import create_method
from finetune.explain.methods.grad_cam import GradCam
from finetune.explain.methods.rollout import Rollout, output_shares, relevance, rollout
from finetune.explain.question import Question
from finetune.explain.removed import baseline
from finetune.fit.linear import LinearVote
from pretrain.backbone.attention import Attention
from pretrain.backbone.embedding import PooledTokens
from tests.finetune.explain.fits import RAW, fitted, made
from tests.finetune.samples import blobs, solid_blobs, tiny_backbone


@pytest.mark.parametrize("kind", ["mean", "zero", "blur"])
@pytest.mark.parametrize("cases", [blobs(12), solid_blobs(12)], ids=["planes", "volumes"])
def test_occlusion_of_a_linear_model_is_weight_times_difference(cases, kind: str) -> None:
    model = fitted(cases, **RAW)
    (member,) = model.predictor_.members
    assert isinstance(member.head, LinearVote)
    affine = member.head.models[0].unstandardised()
    question = Question(member, cases.studies_of(5), 1)
    (said,) = create_method("occlusion", {"block": 3, "step": 3, "baseline": kind}).maps(question)
    image = question.studies[0].images["image"]
    difference = (image.pixels.astype(float) - baseline(image, kind, 3)) / 255
    weighed = (affine.weight_KD[0] * difference.ravel()).reshape(difference.shape)[0]
    expected = np.zeros(said.values.shape)
    for place in np.ndindex(weighed.shape):
        expected[tuple(index // 3 for index in place)] += weighed[place]
    np.testing.assert_allclose(said.values, expected, rtol=1e-3, atol=1e-3)
    assert said.firsts == (1.0,) * weighed.ndim and said.steps == (3.0,) * weighed.ndim


def test_occlusion_of_one_study_of_a_bag_leaves_the_others() -> None:
    """Of a mean of raw pixels a block of one of three studies weighs a third."""
    model, cases = made("raw", "bags")
    (member,) = model.predictor_.members
    studies = cases.studies_of(1)
    assert len(studies) == 3
    said = create_method("occlusion", {"block": 4, "step": 4}).maps(Question(member, studies, 1))
    alone = create_method("occlusion", {"block": 4, "step": 4}).maps(Question(member, studies[1:2], 1))
    np.testing.assert_allclose(said[1].values, alone[0].values / 3, rtol=1e-3, atol=1e-3)


def test_attention_from_its_weights_is_attention() -> None:
    torch.manual_seed(0)
    for layer, context in ((Attention(8, 6, 2), torch.randn(3, 5, 6)), (Attention(8, None, 2), None)):
        queries, mask = torch.randn(3, 4, 8), None
        if context is not None:
            mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
        weights, values = layer.weights(queries, context, mask)
        found = layer.proj((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(found, layer(queries, context, mask))
        sums = weights.sum(dim=-1)
        torch.testing.assert_close(sums[:2], torch.ones_like(sums[:2]))
        assert (sums[2] == (0 if context is not None else pytest.approx(1))).all() if context is not None else True


def test_a_network_with_explicit_attention_is_the_same_and_is_put_back() -> None:
    backbone, images = tiny_backbone().eval(), torch.rand(2, 1, 16, 16)
    before = backbone.features(images, dense=True)
    with explicit(backbone) as layers:
        found = backbone.features(images, dense=True)
    assert set(layers.reading) == {0} and set(layers.mixing) == {0}
    assert layers.reading[0].shape == (2, 2, 8, 16) and layers.answering[0].shape == (2, 2, 17, 8)
    torch.testing.assert_close(found.embedding_BD, before.embedding_BD)
    torch.testing.assert_close(found.tokens_BTD, before.tokens_BTD)
    assert not any("forward" in vars(module) for module in backbone.modules())


def test_rollout_of_identity_attention_is_the_identity() -> None:
    """Up to its size: what is missing is of the latents themselves."""
    eye = torch.eye(5)[None]
    found = rollout({0: eye}, {0: eye, 1: eye, 2: eye}, eye)
    torch.testing.assert_close(found[0], torch.eye(5) / 4)  # read by half, answered by half
    # Dense queries have their own token beside: again the identity, and nothing of it for the embedding.
    dense = torch.cat([torch.full((1, 1, 5), 0.2), eye], dim=1)
    found = rollout({0: eye}, {0: eye}, dense)
    torch.testing.assert_close(found[0, 1:], 0.75 * torch.eye(5))
    torch.testing.assert_close(found[0, 0], torch.full((5,), 0.2 / 4))
    torch.testing.assert_close(relevance({0: eye}, {}, eye)[0], torch.eye(5))
    torch.testing.assert_close(relevance({0: eye}, {0: eye}, dense)[0, 1:], 3 * torch.eye(5))


def test_rollout_is_the_product_of_the_layers_of_the_whole_graph() -> None:
    """An independent way: one square matrix per layer over all nodes (tokens, latents, outputs), multiplied."""
    torch.manual_seed(0)
    tokens, latents = 6, 3
    reading = {0: torch.rand(latents, tokens).softmax(-1), 1: torch.rand(latents, tokens).softmax(-1)}
    mixing = {number: torch.rand(latents, latents).softmax(-1) for number in range(3)}
    answering = torch.rand(1 + tokens, latents).softmax(-1)
    nodes = tokens + latents
    carried = torch.eye(nodes)

    def layer(rows: torch.Tensor, columns: slice) -> torch.Tensor:
        matrix = torch.eye(nodes)
        matrix[tokens:] *= 0.5
        matrix[tokens:, columns] += 0.5 * rows
        return matrix

    for number in range(3):
        if number in reading:
            carried = layer(reading[number], slice(0, tokens)) @ carried
        carried = layer(mixing[number], slice(tokens, nodes)) @ carried
    expected = 0.5 * answering @ carried[tokens:, :tokens]
    expected[1:] += 0.5 * carried[:tokens, :tokens]
    batch = [{number: each[None] for number, each in given.items()} for given in (reading, mixing)]
    torch.testing.assert_close(rollout(*batch, answering[None])[0], expected)
    # The embedding asks the tokens once more; the others stay.
    again = torch.rand(1, tokens).softmax(-1)
    expected[0] = 0.5 * (again[0] + expected[0])
    torch.testing.assert_close(rollout(*batch, answering[None], again[None])[0], expected)
    with_it, without = relevance(*batch, answering[None], again[None]), relevance(*batch, answering[None])
    torch.testing.assert_close(with_it[0, 0], without[0, 0] + again[0])
    torch.testing.assert_close(with_it[0, 1:], without[0, 1:])


def test_rollout_without_classes_is_that_of_the_weights_of_the_network() -> None:
    model, _ = made("embedding", "planes")
    question = Question(model.predictor_.members[0], blobs(12).studies_of(0), 1)
    runs = passes(question, outputs(question))
    with explicit(question.member.backbone) as layers, tokens_on_the_way(question.member.backbone):
        assert len(list(runs)) == 1
    reading, mixing, answering = (each.mean(dim=1)[0] for each in layers.all)
    expected = 0.5 * answering @ (0.5 * mixing + 0.5 * torch.eye(len(mixing))) @ (0.5 * reading)
    (said,) = Rollout(Rollout.Config(gradients=False)).maps(question)
    np.testing.assert_allclose(said.values.ravel(), expected[0].detach().numpy(), rtol=1e-4)


def test_shares_of_the_outputs_add_up_to_one_over_a_case() -> None:
    model, cases = made("attention", "bags")
    shares = output_shares(outputs(Question(model.predictor_.members[0], cases.studies_of(1), 0)))
    assert sum(float(each.sum()) for each in shares) == pytest.approx(1, abs=1e-5)
    assert [len(each) for each in shares] == [17, 17, 17] and all(each[0] == 0 for each in shares)


def test_grad_cam_of_a_linear_layer_on_the_mean_is_its_weight_times_the_tokens() -> None:
    """The network is one linear layer on the mean of the dense tokens: the map is known (CAM, Zhou et al. 2016)."""
    model, cases = made("mean", "planes")
    (member,) = model.predictor_.members
    question = Question(member, cases.studies_of(2), 1)
    tokens = question.features[0].tokens_TD
    weight = torch.from_numpy(member.head.models[0].unstandardised().weight_KD[0]).float() / len(tokens)
    expected = ((tokens - tokens.mean(dim=0)) @ weight).clamp(min=0)
    for weights in ("local", "mean"):
        (said,) = create_method("grad_cam", {"layer": "dense", "weights": weights}).maps(question)
        np.testing.assert_allclose(said.values.ravel(), expected.numpy(), rtol=1e-3, atol=1e-6)


def test_the_mean_weight_is_the_mean_of_the_gradient() -> None:
    features, gradient = torch.randn(6, 4), torch.randn(6, 4)
    found = GradCam(GradCam.Config(weights="mean", positive=False)).cam(features, gradient)
    expected = (features - features.mean(0)) @ gradient.mean(0)
    torch.testing.assert_close(found, expected)
    local = GradCam(GradCam.Config(positive=False)).cam(features, gradient)
    torch.testing.assert_close(local, ((features - features.mean(0)) * gradient).sum(1))


@pytest.mark.parametrize("head", ["embedding", "mean", "attention"])
def test_gradients_at_the_tokens_that_are_read_are_those_of_small_steps(head: str) -> None:
    """The chain through the network, study by study, against a difference of two whole evaluations."""
    model, cases = made(head, "pairs")
    (member,) = model.predictor_.members
    backbone = member.backbone
    question = Question(member, cases.studies_of(0), 1)
    runs = passes(question, outputs(question))
    with tokens_on_the_way(backbone) as kept:
        (grads,) = [run.grad(kept) for run in runs]
    assert [tuple(each.shape) for each in grads] == [(1, 16, 32), (1, 9, 32)]
    step = 1e-2
    for place, grad in enumerate(grads):
        length = float(grad.norm())
        values = []
        for sign in (1, -1):
            calls: list[int] = []

            def moved(module, inputs, made, place=place, grad=grad, sign=sign, length=length, calls=calls):
                calls.append(0)
                return (made[0] + sign * step * grad / length, made[1]) if len(calls) - 1 == place else made

            hook = backbone.adapter.register_forward_hook(moved)
            values.append(Question(member, question.studies, 1).value)
            hook.remove()
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(length, rel=0.05, abs=1e-4)


def test_rollout_refuses_a_network_whose_embedding_also_pools_tokens() -> None:
    model, _ = made("embedding", "planes")
    (member,) = copy.deepcopy(model.predictor_.members)
    member.backbone.reader = PooledTokens(member.backbone.embed_dim)
    with pytest.raises(ConfigError, match="also pools the tokens .embedding=pooled_tokens.; use occlusion or grad_cam"):
        create_method("rollout").check(member)
