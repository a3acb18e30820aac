"""What a forward pass of the backbone costs, in closed form.

A multiplication with its addition counts as two operations. Counted are matrix products, attention and convolutions,
as ``torch.utils.flop_counter`` counts them, and which take nearly all of the time; norms, activations, sums and
the choice of latents are not. A training step costs about three times as much: the backward pass has two products for
each of the forward pass.

Letters: ``T`` tokens, ``N`` latents, ``Q`` queries, ``D`` channels, ``r`` widening of the MLPs, ``A`` axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from pretrain.backbone.attention import Attention, Mlp
from pretrain.backbone.embedding import PooledTokens
from pretrain.backbone.perceiver import Medformer
from pretrain.backbone.stems import HierarchicalStem, InflatedConv


@dataclass(frozen=True)
class Cost:
    """Operations of one image, part by part.

    Attributes:
        tokens: input tokens, ``T``.
        stem: convolutions from pixels to tokens.
        adapter: tokens joined with their positions: ``2 T D (D + F)``, ``F`` position features; ``2 T D F`` where the
            stem has mapped its features already.
        encoder: latents read the tokens, see :func:`_layer`, as often as ``cross_attends`` says.
        blocks: latents read each other, ``depth`` times.
        decoder: queries read the latents, and the embedding the tokens where it does (mean and spread are no products).
    """

    tokens: int
    stem: int
    adapter: int
    encoder: int
    blocks: int
    decoder: int

    @property
    def total(self) -> int:
        """All operations."""
        return self.stem + self.adapter + self.encoder + self.blocks + self.decoder


def forward_cost(model: Medformer, size: Sequence[int], channels: int | None = None, *, dense: bool = False) -> Cost:
    """The cost of one image in a batch of its own.

    Args:
        model: on any device, meta included; nothing is run.
        size: rows and columns, or slices, rows and columns.
        channels: of the image; None for the canonical number.
        dense: whether dense tokens are asked for besides the embedding.

    Raises:
        ValueError: ``size`` is not two or three positive numbers, or ``channels`` is not positive.
    """
    channels = model.in_chans if channels is None else channels
    if len(size) not in (2, 3) or min(*size, channels) < 1:
        raise ValueError(f"size {tuple(size)}, {channels} channels: expected 2 or 3 positive numbers, and channels")
    stem, cells = _stem(model.adapter.stem, size, channels)
    tokens = math.prod(cells)
    dim = model.embed_dim
    joined = model.adapter.proj.in_features + (model.adapter.depth.channels if len(size) == 3 else 0)
    latents = len(model.latents.shared) + sum(rows.shape[1] for rows in model.latents.collections.values())
    encoders = [model.encoder, *model.encoders_again.values()]
    decoder = _layer(model.decoder, 1 + tokens if dense else 1, latents)
    if isinstance(model.reader, PooledTokens):
        decoder += 2 * model.reader.proj.weight.numel()
    elif model.reader is not None:
        decoder += _layer(model.reader, 1, tokens)
    return Cost(
        tokens=tokens,
        stem=stem,
        adapter=2 * tokens * dim * joined,
        encoder=sum(_layer(layer, latents, tokens) for layer in encoders),
        blocks=sum(_layer(layer, latents, latents) for layer in model.blocks),
        decoder=decoder,
    )


def _stem(stem: nn.Module, size: Sequence[int], channels: int) -> tuple[int, list[int]]:
    """Operations, and cells along each axis: ``2 k^A`` for each pair of channels at each place of a result."""
    cells, found = list(size), 0
    if isinstance(stem, HierarchicalStem):  # its images are continued to whole cells
        cells = [-(-length // stem.stride) * stem.stride for length in size]
    for conv in stem.modules():
        if isinstance(conv, InflatedConv):
            cells = [math.ceil(length / conv.stride[0]) for length in cells]
            found += 2 * math.prod(cells) * channels * conv.out_channels * conv.kernel_size[0] ** len(size)
            channels = conv.out_channels
    return found, cells


def _layer(layer: nn.Module, queries: int, context: int) -> int:
    """Projections ``4 Q D^2 + 4 K D^2``, attention ``4 Q K D`` and MLP ``4 r Q D^2``, for ``K`` of context."""
    attention, mlp = layer.attention, layer.mlp
    assert isinstance(attention, Attention) and isinstance(mlp, Mlp)
    qk, v = attention.widths
    if hasattr(attention, "qkv"):
        projections = queries * attention.qkv.weight.numel()
    else:
        # With one head the projections of keys and values move to the queries where these are fewer.
        rows = min(queries, context) if attention.heads == 1 else context
        projections = queries * attention.q.weight.numel() + rows * attention.kv.weight.numel()
    projections += queries * attention.proj.weight.numel()
    perceptron = queries * (mlp.fc1.weight.numel() + mlp.fc2.weight.numel())
    return 2 * (projections + queries * context * (qk + v) + perceptron)
