"""From losses of own images to what an objective returns."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from pretrain.objectives.collectives import world_size
from pretrain.partitions import gathered


def global_mean(loss_B: Tensor, total_rows: int) -> Tensor:
    """What each rank returns so that the mean over ranks is the mean over the images of the global batch.

    Args:
        loss_B: of own images.
        total_rows: images of all ranks together.
    """
    return loss_B.sum() * (world_size() / total_rows)


def touched(loss: Tensor, unused: Iterable[nn.Module]) -> Tensor:
    """The same loss, by which the parameters of modules that had no part in it get a gradient of zero, not none.

    Training in parallel waits for a gradient of every parameter.
    """
    for module in unused:
        for parameter in module.parameters():
            loss = loss + 0.0 * gathered(parameter).flatten()[0]
    return loss
