"""Batch normalisation of feature maps by the statistics of the global batch.

Networks with batch normalisation are trained on several ranks as one process would train them on the concatenated
batch: :class:`~pretrain.objectives.batchnorm.GlobalBatchNorm1d` for maps of any axes, on any device and backend, also
when ranks hold different numbers of images. In evaluation, or with one rank, it is exactly the layer it was.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.objectives.batchnorm import standardise
from pretrain.objectives.collectives import all_reduce_sum, world_size


def global_batch_norm(norm: nn.modules.batchnorm._BatchNorm, x: Tensor) -> Tensor:
    """What the layer gives in training, with statistics of all ranks; its running statistics take part.

    Args:
        norm: the layer.
        x: ``B, C, ...``, own rows.
    """
    rows_RC = x.movedim(1, -1).reshape(-1, x.shape[1]).to(torch.promote_types(x.dtype, torch.float32))
    count = all_reduce_sum(torch.tensor(float(len(rows_RC)), dtype=torch.float64, device=x.device))
    z_RC, mean_C, variance_C = standardise(rows_RC, count.to(rows_RC.dtype), norm.eps)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        assert norm.momentum is not None and norm.num_batches_tracked is not None
        with torch.no_grad():
            unbiased_C = variance_C * (count / (count - 1).clamp_min(1)).to(variance_C.dtype)
            norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), norm.momentum)
            norm.running_var.lerp_(unbiased_C.to(norm.running_var.dtype), norm.momentum)
            norm.num_batches_tracked.add_(1)
    if norm.weight is not None:
        z_RC = z_RC * norm.weight + norm.bias
    return z_RC.reshape(*x.shape[:1], *x.shape[2:], x.shape[1]).movedim(-1, 1).to(x.dtype)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """The part that is common to all of them."""

    def forward(self, x: Tensor) -> Tensor:
        """``B, C, ...`` to the same."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        return global_batch_norm(self, x)


class GlobalBatchNorm1d(GlobalBatchNorm, nn.BatchNorm1d):
    """Of vectors and sequences."""


class GlobalBatchNorm2d(GlobalBatchNorm, nn.BatchNorm2d):
    """Of maps."""


class GlobalBatchNorm3d(GlobalBatchNorm, nn.BatchNorm3d):
    """Of volumes."""


class GlobalBatchNormAct2d(BatchNormAct2d):
    """timm's, which drops blocks and applies the activation too."""

    def forward(self, x: Tensor) -> Tensor:
        """``B, C, H, W`` to the same."""
        if not self.training or world_size() == 1:
            alone: Tensor = super().forward(x)
            return alone
        normed: Tensor = self.act(self.drop(global_batch_norm(self, x)))
        return normed


_GLOBAL: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
    nn.BatchNorm3d: GlobalBatchNorm3d,
    BatchNormAct2d: GlobalBatchNormAct2d,
}


def share_statistics(network: nn.Module) -> None:
    """Have every batch normalisation in a network count the whole global batch.

    Each layer gets another class and stays itself, with its weights and their names.

    Raises:
        ConfigError: a kind of batch normalisation of which it is not known how its statistics are shared.
    """
    for name, module in network.named_modules():
        if isinstance(module, GlobalBatchNorm | GlobalBatchNormAct2d):
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if type(module) not in _GLOBAL:
                raise ConfigError(
                    f"{name} ({type(module).__name__}): it is not known how the statistics of this batch normalisation "
                    "are shared between workers; choose a network without it"
                )
            layer: Any = module
            layer.__class__ = _GLOBAL[type(module)]
