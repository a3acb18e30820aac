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
        heads: number of heads; divides ``qk_dim`` and ``query_dim``.
        qk_dim: total width of queries and keys; the default is ``query_dim``.

    Raises:
        ValueError: ``heads`` does not divide a width.
    """

    def __init__(
        self, query_dim: int, context_dim: int | None = None, heads: int = 1, qk_dim: int | None = None
    ) -> None:
        super().__init__()
        qk_dim = qk_dim or query_dim
        if qk_dim % heads or query_dim % heads:
            raise ValueError(
                f"{heads} heads do not divide the widths {qk_dim} (queries, keys) and {query_dim} (values)"
            )
        self.heads = heads
        self.widths = [qk_dim, query_dim]
        if context_dim is None:
            self.qkv = nn.Linear(query_dim, 2 * qk_dim + query_dim)
        else:
            self.q = nn.Linear(query_dim, qk_dim)
            self.kv = nn.Linear(context_dim, qk_dim + query_dim)
        self.proj = nn.Linear(query_dim, query_dim)

    def forward(self, queries_BQC: Tensor, context_BKC: Tensor | None = None, mask_BK: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries_BQC: the queries.
            context_BKC: what they attend to; None for self-attention.
            mask_BK: true where the context may be attended to; None for everywhere.
        """
        if context_BKC is None:
            q, k, v = self.qkv(queries_BQC).split([self.widths[0], *self.widths], dim=-1)
        else:
            q = self.q(queries_BQC)
            k, v = self.kv(context_BKC).split(self.widths, dim=-1)
        q_BHQE, k_BHKE, v_BHKE = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mask = None if mask_BK is None else mask_BK[:, None, None, :]
        attended_BHQE = F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask)
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
    """

    def __init__(self, dim: int, heads: int, widening: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, None, heads)
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
    """

    def __init__(self, dim: int, context_dim: int, heads: int, widening: float = 4.0) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim)
        self.attention = Attention(dim, context_dim, heads)
        self.mlp = Mlp(dim, widening)

    def forward(self, queries_BQC: Tensor, context_BKC: Tensor, mask_BK: Tensor | None = None) -> Tensor:
        """The queries, enriched by what they found in the context."""
        attended = self.attention(self.norm_queries(queries_BQC), self.norm_context(context_BKC), mask_BK)
        queries_BQC = queries_BQC + attended
        return queries_BQC + self.mlp(queries_BQC)
