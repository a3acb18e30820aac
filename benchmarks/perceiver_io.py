"""Perceiver IO to the letter: any encoder and decoder of the paper (Jaegle et al., ICLR 2022) by configuration.

Shapes: ``B`` samples, ``N`` latents of ``D`` channels, ``T`` tokens of ``C`` channels, ``Q`` output queries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pretrain.backbone.attention import CrossAttentionLayer, SelfAttentionLayer


class PerceiverEncoder(nn.Module):
    """Latents attend to the tokens, then to each other in a block of layers; block and cross-attention may repeat.

    With ``cross_attends`` c and ``repeats`` r the order is cross, block, cross, block, ... until c cross-attentions
    are done, then r - c further blocks (Perceiver, Jaegle et al., ICML 2021, section 3.1; Perceiver IO has c = 1).
    Weight sharing is a number of sets: set i serves application i, and the last set all further applications. So 1
    shares everything, 2 shares everything but the first application, as many sets as applications share nothing.

    Args:
        dim: channels of the latents, ``D``.
        context_dim: channels of the tokens, ``C``.
        layers: self-attention layers of a block.
        repeats: applications of a block.
        block_sets: sets of weights of the block.
        cross_attends: applications of the cross-attention.
        cross_sets: sets of weights of the cross-attention.
        cross_heads: heads of the cross-attention.
        heads: heads of the self-attention.
        cross_widening: MLP width of the cross-attention layer as a multiple of ``dim``.
        widening: MLP width of the self-attention layers as a multiple of ``dim``.
        cross_qk_dim: total width of queries and keys in the cross-attention; the default is ``context_dim``.
        cross_v_dim: total width of values in the cross-attention; the default is ``cross_qk_dim``.
        qk_dim: total width of queries and keys in the self-attention; the default is ``dim``.
        v_dim: total width of values in the self-attention; the default is ``qk_dim``.
        query_residual: whether the cross-attention adds the latents to what they found.

    Raises:
        ValueError: there are more cross-attentions than blocks, more sets than applications, or none of something;
            or the heads do not divide a width.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        *,
        layers: int,
        repeats: int = 1,
        block_sets: int = 1,
        cross_attends: int = 1,
        cross_sets: int = 1,
        cross_heads: int = 1,
        heads: int = 8,
        cross_widening: float = 1.0,
        widening: float = 1.0,
        cross_qk_dim: int | None = None,
        cross_v_dim: int | None = None,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        query_residual: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= cross_attends <= repeats or layers < 1:
            raise ValueError(
                f"{layers} layers, {repeats} blocks, {cross_attends} cross-attentions: expected at least one layer "
                "and one cross-attention, and no more cross-attentions than blocks"
            )
        if not (1 <= block_sets <= repeats and 1 <= cross_sets <= cross_attends):
            raise ValueError(
                f"{block_sets} sets of weights for {repeats} blocks, {cross_sets} for {cross_attends} "
                "cross-attentions: expected at least one set each, and no more sets than applications"
            )
        cross_qk_dim = cross_qk_dim or context_dim
        self.repeats = repeats
        self.cross_attends = cross_attends
        self.grad_checkpointing = False
        self.cross = nn.ModuleList(
            CrossAttentionLayer(
                dim,
                context_dim,
                cross_heads,
                cross_widening,
                qk_dim=cross_qk_dim,
                v_dim=cross_v_dim or cross_qk_dim,
                query_residual=query_residual,
            )
            for _ in range(cross_sets)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                SelfAttentionLayer(dim, heads, widening, qk_dim=qk_dim, v_dim=v_dim or qk_dim) for _ in range(layers)
            )
            for _ in range(block_sets)
        )

    def forward(self, latents_BND: Tensor, tokens_BTC: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """The latents after all layers, ``B, N, D``.

        Args:
            latents_BND: the latent array of each sample, or ``1, N, D`` for all; then their part of the first
                cross-attention is computed only once.
            tokens_BTC: the input.
            mask_BT: true where a token may be attended to; None for everywhere. A sample without any such token
                keeps what its latents and the biases make of each other.
        """
        for index in range(self.repeats):
            if index < self.cross_attends:
                layer = self.cross[min(index, len(self.cross) - 1)]
                latents_BND = self._run(layer, latents_BND, tokens_BTC, mask_BT)
            block = self.blocks[min(index, len(self.blocks) - 1)]
            assert isinstance(block, nn.ModuleList)
            for layer in block:
                latents_BND = self._run(layer, latents_BND)
        return latents_BND

    def _run(self, layer: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        if self.grad_checkpointing and self.training:
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each layer in the backward pass instead of storing it."""
        self.grad_checkpointing = enable


class PerceiverDecoder(nn.Module):
    """Output queries attend to the latents; one layer and an optional projection (section 3.2 of the paper).

    Args:
        query_dim: channels of the queries.
        latent_dim: channels of the latents, ``D``.
        heads: heads of the cross-attention.
        widening: MLP width as a multiple of ``query_dim``.
        qk_dim: total width of queries and keys; the default is ``latent_dim``.
        v_dim: total width of values; the default is ``qk_dim``.
        query_residual: whether the queries are added to what they found: on for classification, off where queries
            and outputs mean different things (language, optical flow).
        out_dim: channels of the output; None leaves out the projection, and the output has ``query_dim`` channels.

    Raises:
        ValueError: the heads do not divide a width.
    """

    def __init__(
        self,
        query_dim: int,
        latent_dim: int,
        *,
        heads: int = 1,
        widening: float = 1.0,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        query_residual: bool = True,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        qk_dim = qk_dim or latent_dim
        self.cross = CrossAttentionLayer(
            query_dim,
            latent_dim,
            heads,
            widening,
            qk_dim=qk_dim,
            v_dim=v_dim or qk_dim,
            query_residual=query_residual,
        )
        self.project = nn.Identity() if out_dim is None else nn.Linear(query_dim, out_dim)

    def forward(self, queries_BQC: Tensor, latents_BND: Tensor) -> Tensor:
        """What each query reads from the latents, ``B, Q, out_dim``; ``1, Q, query_dim`` asks all samples the same."""
        return self.project(self.cross(queries_BQC, latents_BND))
