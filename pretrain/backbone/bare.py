"""How a parameter that belongs to no layer meets a batch: modules without weights of their own.

They only give the operation a place in the network, so that what takes hold of layers (hooks, gradients by sample) can
take hold of it, too.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Rows(nn.Module):
    """The rows of a table that samples name."""

    def forward(self, table: Tensor, ids_B: Tensor) -> Tensor:
        """``B`` and the axes of a row of ``table``."""
        return table[ids_B]


class Repeated(nn.Module):
    """The same for every sample."""

    def forward(self, tensor: Tensor, count: int) -> Tensor:
        """``count`` and the axes of ``tensor``, without a copy."""
        return tensor.expand(count, *tensor.shape)


class Product(nn.Module):
    """A linear map by a weight that is handed in."""

    def forward(self, x: Tensor, weight_OI: Tensor) -> Tensor:
        """``..., O`` of ``..., I``."""
        return F.linear(x, weight_OI)
