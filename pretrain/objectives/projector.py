"""Projection and prediction heads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pretrain.objectives.batchnorm import GlobalBatchNorm1d
from pretrain.objectives.precision import full_precision


class Projector(nn.Sequential):
    """Linear, global batch normalisation and ReLU, repeated; the last Linear stands alone.

    Args:
        widths: channels in, of each hidden layer, and out.
        last_bias: whether the last Linear has a bias.
    """

    def __init__(self, widths: Sequence[int], last_bias: bool = True) -> None:
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths[:-1]):
            # The normalisation takes a bias away again, so there is none.
            layers += [nn.Linear(narrow, wide, bias=False), GlobalBatchNorm1d(wide), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1], bias=last_bias))

    def project(self, x_BD: Tensor, total_rows: int) -> Tensor:
        """Project own rows of a global batch of ``total_rows``, in the precision of the weights."""
        for module in self:
            if isinstance(module, GlobalBatchNorm1d):
                module.total_rows = total_rows
        with full_precision(x_BD):
            return self(x_BD.to(next(self.parameters()).dtype))
