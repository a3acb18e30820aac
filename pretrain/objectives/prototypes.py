"""Prototypes: unit vectors that embeddings are compared with; of clusterings and of self-distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.objectives.collectives import all_reduce_sum
from pretrain.objectives.precision import full_precision


class Prototypes(nn.Module):
    """Cosines of vectors with prototypes.

    The weights may be of any length: they are made unit vectors in the forward pass, so that no step has to edit them.

    Args:
        dim: channels.
        count: prototypes.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, dim) * dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``..., count`` of ``..., dim``."""
        with full_precision(x):
            return F.normalize(x.to(self.weight.dtype), dim=-1) @ F.normalize(self.weight, dim=-1).T


@torch.no_grad()
def sinkhorn(cosines_BK: Tensor, epsilon: float, iterations: int, total_rows: int) -> Tensor:
    """Soft assignments that use all prototypes alike over the global batch (Caron et al., NeurIPS 2020, section 3.1).

    The iteration of Sinkhorn and Knopp (Cuturi, NeurIPS 2013) on ``exp(cosines / epsilon)``: prototypes and images are
    scaled in turn until every prototype has the same share of the batch. No gradient flows through it.

    Args:
        cosines_BK: of own images with each prototype, from -1 to 1.
        epsilon: how soft the assignments are.
        iterations: how often.
        total_rows: images of all ranks together.

    Returns:
        ``B, K``: each row sums to 1.
    """
    shares_BK = ((cosines_BK - 1) / epsilon).exp()  # At most 1, so that nothing overflows.
    for _ in range(iterations):
        totals_K = all_reduce_sum(shares_BK.sum(dim=0)).clamp_min(torch.finfo(shares_BK.dtype).tiny)
        shares_BK = shares_BK * (total_rows / (len(totals_K) * totals_K))
        shares_BK = shares_BK / shares_BK.sum(dim=1, keepdim=True)
    return shares_BK
