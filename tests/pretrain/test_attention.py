"""Attention and its layers: widths against the softmax formula, masks, residuals, and draws that stay as they were."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pretrain.backbone import attention
from pretrain.backbone.attention import Attention, CrossAttentionLayer, Mlp, SelfAttentionLayer

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def softmax_formula(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention of each head by itself, from projected queries, keys and values."""
    found = []
    for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (queries, keys, values)), strict=True):
        scores = torch.einsum("bqe,bke->bqk", q, k) / math.sqrt(q.shape[-1])
        found.append(torch.einsum("bqk,bke->bqe", scores.exp() / scores.exp().sum(dim=-1, keepdim=True), v))
    return torch.cat(found, dim=-1)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("crossed", [False, True])
def test_queries_and_values_may_have_widths_of_their_own(crossed: bool, heads: int) -> None:
    torch.manual_seed(0)
    layer = Attention(8, 6 if crossed else None, heads, 4, v_dim=10).double()
    queries = draw(2, 3, 8)
    context = draw(2, 5, 6, seed=2) if crossed else queries
    if crossed:
        q, (k, v) = layer.q(queries), layer.kv(context).split([4, 10], dim=-1)
    else:
        q, k, v = layer.qkv(queries).split([4, 4, 10], dim=-1)
    expected = layer.proj(softmax_formula(q, k, v, heads))
    torch.testing.assert_close(layer(queries, context if crossed else None), expected)


@pytest.mark.parametrize("widths", [{"heads": 3}, {"heads": 4, "qk_dim": 6}, {"heads": 4, "v_dim": 6}])
def test_heads_that_do_not_divide_a_width_are_refused(widths: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="heads do not divide"):
        Attention(8, **widths)


def test_a_seed_draws_the_weights_of_the_layers_in_their_order() -> None:
    torch.manual_seed(3)
    found = [*CrossAttentionLayer(8, 6, 2, 2.0).state_dict().values(), *SelfAttentionLayer(8, 2).state_dict().values()]
    torch.manual_seed(3)
    norm = [torch.ones(8), torch.zeros(8)]
    linears = [
        nn.Linear(a, b) for a, b in ((8, 8), (6, 16), (8, 8), (8, 16), (16, 8), (8, 24), (8, 8), (8, 32), (32, 8))
    ]
    drawn = [parameter for linear in linears for parameter in (linear.weight, linear.bias)]
    cross = [*norm, torch.ones(6), torch.zeros(6), *drawn[:6], *norm, *drawn[6:10]]
    own = [*norm, *drawn[10:14], *norm, *drawn[14:]]
    assert all(torch.equal(one, other) for one, other in zip(found, [*cross, *own], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("v_dim", [8, 12])
def test_a_sample_that_may_attend_to_nothing_finds_exactly_zero(dtype: torch.dtype, v_dim: int) -> None:
    torch.manual_seed(4)
    attention = Attention(8, 6, 2, v_dim=v_dim).to(dtype)
    queries, context = draw(3, 4, 8, dtype=dtype).requires_grad_(), draw(3, 5, 6, dtype=dtype).requires_grad_()
    mask = torch.tensor([[True, False, True, True, False], [False] * 5, [True] * 5])
    found = attention(queries, context, mask)
    assert torch.equal(found[1], attention.proj.bias.expand(4, -1))
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (queries, context, *attention.parameters()))
    assert not queries.grad[1].any() and not context.grad[1].any()
    assert queries.grad[0].any() and context.grad[0, 0].any() and not context.grad[0, 1].any()


def test_the_other_samples_of_a_batch_do_not_notice_one_without_tokens() -> None:
    torch.manual_seed(5)
    layer = CrossAttentionLayer(8, 6, 2).double()
    queries, context = draw(2, 4, 8), draw(2, 5, 6)
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    alone = layer(queries[:1], context[:1, mask[0]])
    torch.testing.assert_close(layer(queries, context, mask)[:1], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_padding_with_a_mask_changes_neither_output_nor_gradient(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(6)
    layer = CrossAttentionLayer(8, 6, 2, qk_dim=4, v_dim=12).to(dtype)
    queries, context = draw(2, 3, 8, dtype=dtype), draw(2, 5, 6, dtype=dtype)
    padded = torch.cat([context, 1e3 * draw(2, 4, 6, dtype=dtype, seed=2)], dim=1)
    mask = (torch.arange(9) < 5).expand(2, -1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(7))
    weights = draw(2, 3, 8, dtype=dtype, seed=3)
    gradients = []
    outputs = [layer(queries, context), layer(queries, padded[:, order], mask[:, order])]
    for output in outputs:
        gradients.append(torch.autograd.grad((output * weights).sum(), list(layer.parameters())))
    torch.testing.assert_close(outputs[1], outputs[0], atol=tolerance, rtol=0)
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found, expected, atol=10 * tolerance, rtol=0)


def test_without_the_query_residual_the_queries_only_ask() -> None:
    torch.manual_seed(8)
    layer = CrossAttentionLayer(8, 6, 2, query_residual=False).double()
    queries, context = draw(2, 3, 8), draw(2, 5, 6)
    asked = layer.attention(layer.norm_queries(queries), layer.norm_context(context))
    torch.testing.assert_close(layer(queries, context), asked + layer.mlp(asked))
    # Layer norm hides the scale of the queries, and nothing else of them reaches the output.
    torch.testing.assert_close(layer(1e3 * queries, context), layer(queries, context), atol=1e-4, rtol=0)
    layer.query_residual = True
    both = queries + asked
    torch.testing.assert_close(layer(queries, context), both + layer.mlp(both))


def test_a_widening_below_one_narrows_the_mlp() -> None:
    assert Mlp(8, 0.5).fc1.out_features == 4


@pytest.mark.parametrize("masked", [False, True])
def test_no_value_of_a_tensor_decides_what_is_computed(masked: bool) -> None:
    # A tensor on the device "meta" has no values: reading one, which would halt a GPU, is an error.
    with torch.device("meta"):
        layer = CrossAttentionLayer(8, 6, 2)
        mask = torch.ones(2, 5, dtype=torch.bool) if masked else None
        output = layer(torch.empty(2, 3, 8), torch.empty(2, 5, 6), mask)
        output.sum().backward()
    assert output.shape == (2, 3, 8)


def test_layers_compile_to_one_graph() -> None:
    torch.manual_seed(9)
    layer = CrossAttentionLayer(8, 6, 2, qk_dim=4, v_dim=12)
    queries, context = draw(2, 3, 8, dtype=torch.float32), draw(2, 5, 6, dtype=torch.float32)
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(queries, context, mask), layer(queries, context, mask))


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_bfloat16_on_a_cpu_gives_what_float64_gives_by_products_and_by_the_kernel(
    masked: bool, products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.backbone.attention._HAS_BFLOAT16_PRODUCTS", products)
    torch.manual_seed(0)
    layer = CrossAttentionLayer(32, 48, 2).double()
    queries, context, weights = draw(3, 5, 32), draw(3, 40, 48, seed=2), draw(3, 5, 32, seed=3)
    mask = torch.arange(40).expand(3, -1) < torch.tensor([[40], [7], [0]]) if masked else None
    wanted = layer(queries, context, mask)
    (wanted * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.float().zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(queries.float(), context.float(), mask)
    (found * weights).sum().backward()
    eps = torch.finfo(torch.bfloat16).eps
    assert (found - wanted).norm() < eps * wanted.norm()
    flat = [torch.cat([grads[name].flatten().double() for name in gradients]) for grads in (gradients, _grads(layer))]
    assert (flat[0] - flat[1]).norm() < 3 * eps * flat[0].norm()


def test_what_training_adds_to_all_keys_costs_bfloat16_no_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.backbone.attention._HAS_BFLOAT16_PRODUCTS", True)
    queries, keys = draw(2, 4, 16, 32, dtype=torch.float32), draw(2, 4, 80, 32, seed=2, dtype=torch.float32)
    values, mask = draw(2, 4, 80, 32, seed=3, dtype=torch.float32), torch.ones(2, 80, dtype=torch.bool)
    mask[1, 50:] = False
    queries[..., 0] = 20.0
    for added in (0.0, 64.0):
        keys[..., 0] = added  # to the score of each: 20 added / sqrt(32)
        keys[1, :, 50:, 0] = 1e4  # padding
        given = [part.to(torch.bfloat16) for part in (queries, keys, values)]
        for masked in (mask, None):
            rows = slice(0, 1) if masked is None else slice(0, 2)
            known = None if masked is None else masked[:, None, None]
            wanted = nn.functional.scaled_dot_product_attention(*(part.double()[rows] for part in given), known)
            found = attention._attend(*(part[rows] for part in given), masked)
            assert (found - wanted).norm() < 2 * torch.finfo(torch.bfloat16).eps * wanted.norm()


def test_torch_without_what_is_asked_for_reads_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not attention._has_bfloat16_products()


def _grads(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}
