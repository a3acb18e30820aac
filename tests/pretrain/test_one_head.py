"""Attention of one head to a long context, which is not projected: the same results, gradients and masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pretrain.backbone.attention import Attention, CrossAttentionLayer
from tests.pretrain.test_attention import DTYPES, draw, softmax_formula

PLACES, CHANNELS = 7, 5


def drawn(attention: Attention) -> Attention:
    for number, parameter in enumerate(attention.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=number))
    return attention.double()


def plain(attention: Attention, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    """Keys and values of the whole context, one sample after another."""
    found = []
    for number in range(len(context)):
        kept = context[number : number + 1] if mask is None else context[number : number + 1, mask[number]]
        k, v = attention.kv(kept).split(attention.widths, dim=-1)
        q = attention.q(queries[number : number + 1] if len(queries) > 1 else queries)
        found.append(softmax_formula(q, k, v, 1) if kept.shape[1] else q.new_zeros(1, q.shape[1], v.shape[-1]))
    return attention.proj(torch.cat(found))


def projected_rows(attention: Attention, *inputs: Tensor | None) -> int:
    """How many rows the projection of keys and values is applied to as a module; a hook would forbid the shortcut."""
    rows: list[int] = []
    forward = nn.Linear.forward

    def counted(layer: nn.Linear, values: Tensor) -> Tensor:
        rows.extend([values.shape[1]] * (layer is attention.kv))
        return forward(layer, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", counted)
        attention(*inputs)
    return sum(rows)


@pytest.mark.parametrize("asked", [1, 3])
@pytest.mark.parametrize("width", [CHANNELS, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_results_and_gradients_are_those_of_keys_and_values(asked: int, width: int, masked: bool) -> None:
    attention = drawn(Attention(4, width, 1, width, v_dim=width + 2))
    queries, context = draw(asked, 3, 4), draw(3, PLACES, width, seed=2).requires_grad_()
    mask = torch.tensor([[True] * 7, [False, True, True, False, True, False, False], [False] * 7]) if masked else None
    assert projected_rows(attention, queries, context, mask) == 0
    found, expected = attention(queries, context, mask), plain(attention, queries, context, mask)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weights = draw(*expected.shape, seed=3)
    inputs = [context, *attention.parameters()]
    for one, other in zip(
        *(torch.autograd.grad((outputs * weights).sum(), inputs) for outputs in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_precision_is_as_near_to_the_formula_as_keys_and_values_are(dtype: torch.dtype) -> None:
    attention = drawn(Attention(4, CHANNELS, 1, CHANNELS))
    queries, context = draw(3, 3, 4), draw(3, PLACES, CHANNELS, seed=2)
    expected = plain(attention, queries, context)
    found = attention.to(dtype)(queries.to(dtype), context.to(dtype)).double()
    torch.testing.assert_close(
        found, expected, rtol=0, atol=30 * torch.finfo(dtype).eps * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize(
    "attention, places, why",
    [
        (Attention(4, 6, 2, 6), PLACES, "two heads"),
        (Attention(4, 6, 1, 4), PLACES, "keys narrower than the context"),
        (Attention(4, 6, 1, 6), 3, "no more context than queries"),
    ],
)
def test_keys_and_values_are_made_where_that_is_cheaper(attention: Attention, places: int, why: str) -> None:
    assert projected_rows(attention, draw(2, 3, 4).float(), draw(2, places, 6).float()) == places, why


def test_queries_that_all_samples_share_are_projected_once() -> None:
    for heads in (1, 2):
        layer = CrossAttentionLayer(4, 6, heads, qk_dim=6, v_dim=6).double()
        rows: list[int] = []
        layer.attention.q.register_forward_hook(lambda module, args, out, rows=rows: rows.append(len(args[0])))
        queries, context = draw(1, 3, 4), draw(2, PLACES, 6, seed=2)
        shared = layer(queries, context)
        assert rows == [1]
        torch.testing.assert_close(shared, layer(queries.expand(2, -1, -1), context), rtol=0, atol=1e-13)


def test_an_exported_layer_takes_a_context_of_any_length() -> None:
    attention = drawn(Attention(4, CHANNELS, 1, CHANNELS)).eval()
    queries, context = draw(2, 3, 4), draw(2, PLACES, CHANNELS, seed=2)
    lengths = {"queries_BQC": None, "context_BKC": {1: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(attention, (queries, context), dynamic_shapes=lengths).module()
    for places in (PLACES, 2):
        context = draw(2, places, CHANNELS, seed=2)
        torch.testing.assert_close(program(queries, context), attention(queries, context), rtol=1e-10, atol=1e-12)
