"""Attention and the pre-norm layers a Perceiver IO is made of (Jaegle et al., ICLR 2022, appendix E).

Shapes: ``B`` samples, ``Q`` queries, ``K`` keys, ``H`` heads, ``E`` channels per head.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention of queries to a context, through ``scaled_dot_product_attention``.

    Args:
        query_dim: channels of the queries, and of the result.
        context_dim: channels of the context; None makes it self-attention with one fused projection.
        heads: number of heads; divides ``qk_dim`` and ``v_dim``.
        qk_dim: total width of queries and keys; the default is ``query_dim``.
        v_dim: total width of values; the default is ``query_dim``.

    Raises:
        ValueError: ``heads`` does not divide a width.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 1,
        qk_dim: int | None = None,
        *,
        v_dim: int | None = None,
    ) -> None:
        super().__init__()
        qk_dim, v_dim = qk_dim or query_dim, v_dim or query_dim
        if heads < 1 or qk_dim % heads or v_dim % heads:
            raise ValueError(f"{heads} heads do not divide the widths {qk_dim} (queries, keys) and {v_dim} (values)")
        self.heads = heads
        self.widths = [qk_dim, v_dim]
        if context_dim is None:
            self.qkv = nn.Linear(query_dim, 2 * qk_dim + v_dim)
        else:
            self.q = nn.Linear(query_dim, qk_dim)
            self.kv = nn.Linear(context_dim, qk_dim + v_dim)
        self.proj = nn.Linear(v_dim, query_dim)

    def forward(self, queries_BQC: Tensor, context_BKC: Tensor | None = None, mask_BK: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries_BQC: the queries.
            context_BKC: what they attend to; None for self-attention.
            mask_BK: true where the context may be attended to; None for everywhere. A sample that may attend to
                nothing finds zero values, so that the bias of the output projection is all that is left.

        Returns:
            ``B, Q, query_dim``.
        """
        if context_BKC is None:
            q, k, v = self.qkv(queries_BQC).split([self.widths[0], *self.widths], dim=-1)
        else:
            q = self.q(queries_BQC)
            k, v = self.kv(context_BKC).split(self.widths, dim=-1)
        q_BHQE, k_BHKE, v_BHKE = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        if mask_BK is None:
            attended_BHQE = F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE)
        else:
            # The softmax of nothing is not a number in some kernels: attend to everything, then drop what was found.
            mask_B11K = mask_BK[:, None, None, :]
            empty_B111 = ~mask_B11K.any(dim=-1, keepdim=True)
            attended_BHQE = F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask_B11K | empty_B111)
            attended_BHQE = attended_BHQE.masked_fill(empty_B111, 0.0)
        return self.proj(attended_BHQE.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """LayerNorm, Linear, GELU, Linear.

    Args:
        dim: channels in and out.
        widening: hidden width as a multiple of ``dim``.
    """

    def __init__(self, dim: int, widening: float) -> None:
        super().__init__()
        hidden = int(dim * widening)
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position alone; the residual is the caller's."""
        return self.fc2(self.act(self.fc1(self.norm(x))))


class SelfAttentionLayer(nn.Module):
    """Pre-norm self-attention and MLP, each with a residual.

    Args:
        dim: channels.
        heads: attention heads.
        widening: MLP width as a multiple of ``dim``.
        drop_path: probability of skipping a residual branch in training (stochastic depth).
        qk_dim: total width of queries and keys; the default is ``dim``.
        v_dim: total width of values; the default is ``dim``.

    Raises:
        ValueError: ``heads`` does not divide a width.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        widening: float = 4.0,
        drop_path: float = 0.0,
        *,
        qk_dim: int | None = None,
        v_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, None, heads, qk_dim, v_dim=v_dim)
        self.mlp = Mlp(dim, widening)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Mix the positions, then transform each."""
        x_BNC = x_BNC + self.drop_path(self.attention(self.norm(x_BNC)))
        return x_BNC + self.drop_path(self.mlp(x_BNC))


class CrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention from queries to a context and MLP, each with a residual.

    Args:
        dim: channels of the queries.
        context_dim: channels of the context.
        heads: attention heads.
        widening: MLP width as a multiple of ``dim``.
        qk_dim: total width of queries and keys; the default is ``dim``.
        v_dim: total width of values; the default is ``dim``.
        query_residual: whether the queries are added to what they found; off where queries and outputs mean
            different things, such as positions and flow.

    Raises:
        ValueError: ``heads`` does not divide a width.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        heads: int,
        widening: float = 4.0,
        *,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        query_residual: bool = True,
    ) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim)
        self.attention = Attention(dim, context_dim, heads, qk_dim, v_dim=v_dim)
        self.mlp = Mlp(dim, widening)
        self.query_residual = query_residual

    def forward(self, queries_BQC: Tensor, context_BKC: Tensor, mask_BK: Tensor | None = None) -> Tensor:
        """The queries, enriched by what they found in the context.

        Args:
            queries_BQC: the queries.
            context_BKC: what they attend to.
            mask_BK: true where the context may be attended to, see :meth:`Attention.forward`.
        """
        x_BQC = self.attention(self.norm_queries(queries_BQC), self.norm_context(context_BKC), mask_BK)
        if self.query_residual:
            x_BQC = queries_BQC + x_BQC
        return x_BQC + self.mlp(x_BQC)
