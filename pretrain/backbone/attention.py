"""Attention and the pre-norm layers a Perceiver IO is made of (Jaegle et al., ICLR 2022, appendix E).

Shapes: ``B`` samples, ``Q`` queries, ``K`` keys, ``H`` heads, ``E`` channels per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from pretrain.backbone.plain import is_plain


def _has_bfloat16_products() -> bool:
    """Whether the CPU has instructions for products in bfloat16, and torch a library that uses them."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
    return torch.backends.mkldnn.is_available() and any(supported() for supported in asked)


_HAS_BFLOAT16_PRODUCTS = _has_bfloat16_products()


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
            queries_BQC: the queries; ``1, Q, query_dim`` when all samples of a batch ask the same, which is projected
                only once.
            context_BKC: what they attend to; None for self-attention.
            mask_BK: true where the context may be attended to; None for everywhere. A sample that may attend to
                nothing finds zero values, so that the bias of the output projection is all that is left.

        Returns:
            ``B, Q, query_dim``.
        """
        if context_BKC is not None and self._absorbs(queries_BQC, context_BKC):
            return self.proj(self._absorbed(self.q(queries_BQC), context_BKC, mask_BK))
        q_BHQE, k_BHKE, v_BHKE = self._projected(queries_BQC, context_BKC)
        attended_BHQE = _attend(q_BHQE, k_BHKE, v_BHKE, mask_BK)
        return self.proj(attended_BHQE.transpose(1, 2).flatten(2))

    def weights(
        self, queries_BQC: Tensor, context_BKC: Tensor | None = None, mask_BK: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """How much each query takes of each place of the context, and the values that lie there.

        ``proj`` of the weighted values is what :meth:`forward` gives; that never holds the weights, this does.

        Args:
            queries_BQC: as of :meth:`forward`.
            context_BKC: likewise.
            mask_BK: likewise.

        Returns:
            ``B, H, Q, K``, each row 1 in sum, or 0 where a sample may attend to nothing; and ``B, H, K, E``.
        """
        q_BHQE, k_BHKE, v_BHKE = self._projected(queries_BQC, context_BKC)
        scores_BHQK = (q_BHQE * q_BHQE.shape[-1] ** -0.5) @ k_BHKE.transpose(-2, -1)
        if mask_BK is None:
            return scores_BHQK.softmax(dim=-1), v_BHKE
        mask_B11K = mask_BK[:, None, None, :]
        weights_BHQK = scores_BHQK.masked_fill(~mask_B11K, torch.finfo(scores_BHQK.dtype).min).softmax(dim=-1)
        return weights_BHQK.masked_fill(~mask_B11K, 0.0), v_BHKE

    def _projected(self, queries_BQC: Tensor, context_BKC: Tensor | None) -> list[Tensor]:
        """Queries, keys and values, ``B, H, Q or K, E`` each."""
        if context_BKC is None:
            parts = self.qkv(queries_BQC).split([self.widths[0], *self.widths], dim=-1)
        else:
            q = self.q(queries_BQC).expand(context_BKC.shape[0], -1, -1)
            parts = (q, *self.kv(context_BKC).split(self.widths, dim=-1))
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts]

    def _absorbs(self, queries_BQC: Tensor, context_BKC: Tensor) -> bool:
        """Whether the projections of keys and values can be moved to the side of the queries, and are cheaper there."""
        if (
            not is_plain(self.kv)
            or self.heads > 1
            or 2 * context_BKC.shape[-1] > sum(self.widths)
            or torch.compiler.is_exporting()
        ):
            return False
        return queries_BQC.shape[1] < context_BKC.shape[1]

    def _absorbed(self, q_BQE: Tensor, context_BKC: Tensor, mask_BK: Tensor | None) -> Tensor:
        """Attention of one head without keys or values: the context itself serves as both.

        ``q . (K c + k) = (q K) . c + q . k``, where the last term is the same for all of the context and drops out of
        the softmax; and the weights sum to one, so ``sum_i w_i (V c_i + v) = V (sum_i w_i c_i) + v``. The long context
        is neither projected nor stored as keys and values, only the few queries are.
        """
        weight_EC, weight_VC = self.kv.weight.split(self.widths)
        q_BQC = q_BQE @ weight_EC
        # Kernels for the CPU need rows of whole vectors, and take twice as long for others; those for GPUs pad as well.
        channels = context_BKC.shape[-1]
        missing = -channels % 8
        if missing:
            q_BQC, context_BKC = F.pad(q_BQC, (0, missing)), F.pad(context_BKC, (0, missing))
        q_B1QC, context_B1KC = q_BQC.expand(context_BKC.shape[0], -1, -1)[:, None], context_BKC[:, None]
        found_B1QC = _attend(q_B1QC, context_B1KC, context_B1KC, mask_BK, self.widths[0] ** -0.5)
        found_BQV = F.linear(found_B1QC[:, 0, :, :channels], weight_VC, self.kv.bias[self.widths[0] :])
        return found_BQV if mask_BK is None else found_BQV.masked_fill(~mask_BK.any(dim=-1)[:, None, None], 0.0)


def _attend(
    q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, mask_BK: Tensor | None, scale: float | None = None
) -> Tensor:
    attention = _products if _by_products(q_BHQE) else F.scaled_dot_product_attention
    if mask_BK is None:
        return attention(q_BHQE, k_BHKE, v_BHKE, scale=scale)
    # The softmax of nothing is not a number in some kernels: attend to everything, then drop what was found.
    mask_B11K = mask_BK[:, None, None, :]
    empty_B111 = ~mask_B11K.any(dim=-1, keepdim=True)
    attended_BHQE = attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask_B11K | empty_B111, scale=scale)
    return attended_BHQE.masked_fill(empty_B111, 0.0)


def _by_products(x: Tensor) -> bool:
    """Whether two products of matrices in bfloat16, by the tensor's own type or by autocast, beat the fused kernel.

    That of CPUs does not use their instructions for bfloat16.
    """
    if x.device.type != "cpu" or not _HAS_BFLOAT16_PRODUCTS or torch.compiler.is_exporting():
        return False
    if x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16


def _products(
    q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """What ``scaled_dot_product_attention`` gives, but for scores that are rounded to bfloat16.

    The mean of the keys is taken from them first. It adds the same to all scores of a query and so nothing to the
    softmax, but training may let it grow, and what is rounded with it loses its last digits.
    """
    same = k_BHKE is v_BHKE
    v_BHKE = v_BHKE.to(torch.bfloat16)  # before autocast would do so, once for both, and for all that follows
    k_BHKE = v_BHKE if same else k_BHKE.to(torch.bfloat16)
    keys_BHKE = k_BHKE.detach()
    if attn_mask is None:
        mean_BH1E = keys_BHKE.mean(dim=-2, keepdim=True)
    else:
        mean_BH1E = keys_BHKE.masked_fill(~attn_mask.transpose(-2, -1), torch.nan).nanmean(dim=-2, keepdim=True)
    k_BHKE = k_BHKE - mean_BH1E
    scores_BHQK = (q_BHQE * (scale or q_BHQE.shape[-1] ** -0.5)) @ k_BHKE.transpose(-2, -1)
    if attn_mask is not None:
        scores_BHQK = scores_BHQK.masked_fill(~attn_mask, -torch.inf)
    return scores_BHQK.softmax(dim=-1) @ v_BHKE


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
            queries_BQC: the queries; ``1, Q, dim`` when all samples of a batch ask the same.
            context_BKC: what they attend to.
            mask_BK: true where the context may be attended to, see :meth:`Attention.forward`.
        """
        x_BQC = self.attention(self.norm_queries(queries_BQC), self.norm_context(context_BKC), mask_BK)
        if self.query_residual:
            x_BQC = queries_BQC + x_BQC
        return x_BQC + self.mlp(x_BQC)
