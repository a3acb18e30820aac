"""Batch normalisation by the statistics of the global batch, on any device and backend.

``torch.nn.SyncBatchNorm`` needs a GPU; this runs on gloo too, takes ranks with different row counts, and its
gradient is exactly that of one process on the concatenated batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.objectives.collectives import all_reduce_sum, world_size


def standardise(x_BD: Tensor, total_rows: int | Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Centre and scale each column over the global batch (biased variance).

    The variance is taken of the centred values, in a second pass: E[x^2] - E[x]^2 loses its digits in float32.

    Args:
        x_BD: own rows.
        total_rows: rows of all ranks together.
        eps: added to the variance.

    Returns:
        The standardised rows, and mean and biased variance of each column.
    """
    mean_D = all_reduce_sum(x_BD.sum(dim=0)) / total_rows
    centred_BD = x_BD - mean_D
    variance_D = all_reduce_sum(centred_BD.square().sum(dim=0)) / total_rows
    return centred_BD * torch.rsqrt(variance_D + eps), mean_D, variance_D


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d` over ``B, D``, with the statistics of all ranks in training."""

    total_rows: int | None = None
    """Rows of all ranks together; set by the projector before each forward pass when there are several ranks."""

    def forward(self, x_BD: Tensor) -> Tensor:
        """Normalise; in evaluation, or with one rank, exactly what the parent class does."""
        if not self.training or world_size() == 1:
            return super().forward(x_BD)
        assert self.total_rows is not None and self.momentum is not None
        z_BD, mean_D, variance_D = standardise(x_BD, self.total_rows, self.eps)
        if self.track_running_stats:
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                unbiased = variance_D * (self.total_rows / max(self.total_rows - 1, 1))
                self.running_mean.lerp_(mean_D.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked.add_(1)
        return z_BD if self.weight is None else z_BD * self.weight + self.bias
