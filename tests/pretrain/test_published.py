"""Perceiver IO to the letter: counts, outputs and gradients of ``transformers``; variants equal a plain loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverForImageClassificationFourier, PerceiverForMaskedLM
from transformers.models.perceiver.modeling_perceiver import build_linear_positions, generate_fourier_features

from benchmarks.perceiver_io import PerceiverDecoder, PerceiverEncoder
from pretrain.backbone.position import FourierPosition
from tests.pretrain.published import FourierClassifier, MaskedLanguageModel, fourier_tokens, from_transformers

VISION = PerceiverConfig(
    num_latents=512,
    d_latents=1024,
    d_model=261,
    num_blocks=8,
    num_self_attends_per_block=6,
    num_cross_attention_heads=1,
    num_labels=1000,
)
LANGUAGE = PerceiverConfig(qk_channels=256, v_channels=1280)
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def random_weights(model: nn.Module) -> nn.Module:
    """Weights far from their first draw, which is too small for the softmax to matter."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        scale = 1 / parameter.shape[1] ** 0.5 if parameter.ndim == 2 and "embeddings" not in name else 0.5
        parameter.data.copy_(drawn * scale + ("norm" in name and name.endswith("weight")))
    return model.eval()


def small_vision() -> tuple[nn.Module, FourierClassifier]:
    config = PerceiverConfig(
        num_latents=6,
        d_latents=32,
        d_model=261,
        num_blocks=3,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        num_labels=5,
    )
    ours = FourierClassifier(5, latents=6, dim=32, layers=2, repeats=3, heads=4)
    return random_weights(PerceiverForImageClassificationFourier(config)), ours


def small_language() -> tuple[nn.Module, MaskedLanguageModel]:
    config = PerceiverConfig(
        num_latents=6,
        d_latents=32,
        d_model=16,
        num_self_attends_per_block=3,
        qk_channels=256,
        v_channels=32,
        vocab_size=20,
        max_position_embeddings=12,
    )
    ours = MaskedLanguageModel(20, 12, token_dim=16, latents=6, dim=32, layers=3)
    return random_weights(PerceiverForMaskedLM(config)), ours


def assert_agree(found: Tensor, expected: Tensor, tolerance: float, name: str = "") -> None:
    """Equal to ``tolerance`` of the largest value, and of 1 where all are smaller."""
    scale = max(1.0, float(expected.detach().abs().max()))
    assert found.shape == expected.shape, name
    assert float((found - expected).detach().abs().max()) <= tolerance * scale, name


def assert_same_model(theirs: nn.Module, ours: nn.Module, run: Callable[[nn.Module], Tensor], tolerance: float) -> None:
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    expected, found = run(theirs), run(ours)
    assert expected.std() > 0.1
    assert_agree(found, expected, tolerance, "output")
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=expected.dtype)
    for output in (expected, found):
        (output * weights).sum().backward()
    gradients = from_transformers({name: p.grad for name, p in theirs.named_parameters()})
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        assert_agree(parameter.grad, gradients[name], tolerance, name)


@pytest.mark.parametrize(
    "ours, theirs, config, count",
    [
        (FourierClassifier, PerceiverForImageClassificationFourier, VISION, 48_440_627),
        (MaskedLanguageModel, PerceiverForMaskedLM, LANGUAGE, 201_108_230),
    ],
)
def test_published_sizes_and_every_name_and_shape(
    ours: type[nn.Module], theirs: type[nn.Module], config: PerceiverConfig, count: int
) -> None:
    with torch.device("meta"):
        model, reference = ours(), theirs(config)
        assert sum(p.numel() for p in model.parameters()) == count == sum(p.numel() for p in reference.parameters())
        model.load_state_dict(from_transformers(reference.state_dict()), strict=True, assign=True)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
def test_the_vision_model_is_that_of_transformers(dtype: torch.dtype, tolerance: float) -> None:
    theirs, ours = (model.to(dtype) for model in small_vision())
    images = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    run = lambda model: getattr(output := model(images), "logits", output)  # noqa: E731
    assert_same_model(theirs, ours, run, tolerance)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [12, 7])
def test_the_language_model_is_that_of_transformers(
    dtype: torch.dtype, tolerance: float, masked: bool, length: int
) -> None:
    theirs, ours = (model.to(dtype) for model in small_language())
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 20, (2, length), generator=generator)
    mask = torch.rand(2, length, generator=generator) < 0.6 if masked else None

    def run(model: nn.Module) -> Tensor:
        if model is ours:  # tokenizers give numbers
            return model(ids, mask if mask is None else mask.long())
        return model(ids, attention_mask=mask).logits[:, :length]

    assert_same_model(theirs, ours, run, tolerance)


def test_a_name_of_another_model_is_refused() -> None:
    for name in ("perceiver.encoder.cross_attention.attention.self.rotary.weight", "bert.embeddings.weight"):
        with pytest.raises(KeyError, match=name):
            from_transformers({name: torch.zeros(1)})


@pytest.mark.parametrize("size", [(9,), (9, 7), (5, 4, 6), (1, 3)])
def test_fourier_features_are_those_of_transformers(size: tuple[int, ...]) -> None:
    axes, voxels = len(size), torch.Size(size).numel()
    places = build_linear_positions(size).reshape(1, voxels, axes)
    expected = generate_fourier_features(places, num_bands=6, max_resolution=(20,) * axes)[0]
    assert torch.equal(FourierPosition(axes, 6, 20 / 2)(places[0]), expected)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
    for dtype in (torch.float32, torch.bfloat16):
        tokens = fourier_tokens(images.to(dtype), bands=6, resolution=20)
        assert torch.equal(tokens[1, :, 3:], expected.to(dtype))
        assert torch.equal(tokens[1, :, :3], images[1].to(dtype).reshape(3, -1).T)


def test_the_order_of_the_tokens_does_not_matter() -> None:
    encoder = random_weights(PerceiverEncoder(16, 29, layers=2))
    tokens = fourier_tokens(torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(4)), 6, 20)
    latents = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(5))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(6))
    assert_agree(encoder(latents, tokens[:, order]), encoder(latents, tokens), 1e-6)


@pytest.mark.parametrize(
    "cross_attends, cross_sets, repeats, block_sets, expected",
    [
        (1, 1, 1, 1, "a0"),
        (1, 1, 3, 1, "a000"),
        (1, 1, 3, 2, "a011"),
        (1, 1, 3, 3, "a012"),
        (3, 1, 3, 1, "a0a0a0"),
        (3, 2, 4, 2, "a0b1b11"),
        (2, 2, 3, 3, "a0b12"),
        (3, 3, 3, 1, "a0b0c0"),
    ],
)
def test_repeats_and_sharing_are_a_plain_loop(
    cross_attends: int, cross_sets: int, repeats: int, block_sets: int, expected: str
) -> None:
    encoder = PerceiverEncoder(
        8,
        6,
        layers=2,
        heads=2,
        cross_attends=cross_attends,
        cross_sets=cross_sets,
        repeats=repeats,
        block_sets=block_sets,
    )
    random_weights(encoder.double())
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, False, True, False, False]])
    x = latents
    for step in expected:
        if step in "abc":
            x = encoder.cross["abc".index(step)](x, tokens, mask)
        else:
            for layer in encoder.blocks[int(step)]:
                x = layer(x)
    assert torch.equal(encoder(latents, tokens, mask), x)
    x.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    "counts", [{"layers": 0}, {"cross_attends": 0}, {"cross_attends": 3}, {"block_sets": 3}, {"cross_sets": 2}]
)
def test_counts_that_do_not_fit_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(counts.values()))} (layers|cross-attentions|sets|for)"):
        PerceiverEncoder(8, 6, **{"layers": 1, "repeats": 2, **counts})


@pytest.mark.parametrize("query_residual", [False, True])
def test_the_decoder_is_one_cross_attention_and_a_projection(query_residual: bool) -> None:
    decoder = PerceiverDecoder(8, 6, heads=2, widening=2.0, query_residual=query_residual, out_dim=3).double()
    queries, latents = torch.randn(2, 4, 8, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    x = decoder.cross.attention(decoder.cross.norm_queries(queries), decoder.cross.norm_context(latents))
    x = x + queries if query_residual else x
    assert torch.equal(decoder(queries, latents), decoder.project(x + decoder.cross.mlp(x)))
    assert decoder.cross.attention.widths == [6, 6]
    assert PerceiverDecoder(8, 6)(queries.float(), latents.float()).shape == (2, 4, 8)


def test_recomputing_layers_gives_the_same_gradients() -> None:
    encoder = random_weights(PerceiverEncoder(8, 6, layers=2, heads=2, repeats=2)).train()
    latents, tokens = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 5, 6, requires_grad=True)
    gradients, stored = [], []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda saved, kept=kept: kept.append(saved) or saved, lambda x: x
        ):
            loss = encoder(latents, tokens).square().sum()
        stored.append(len(kept))
        gradients.append(torch.autograd.grad(loss, [latents, tokens, *encoder.parameters()]))
    assert stored[1] < stored[0] / 4
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_other_axes_and_longer_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="B,C,H,W"):
        small_vision()[1](torch.zeros(1, 3, 4, 4, 4))
    with pytest.raises(ValueError, match="13 tokens, the model 12 positions"):
        small_language()[1](torch.zeros(1, 13, dtype=torch.long))
