"""The image at a few pixels, told from the embedding alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.objectives.batchnorm import standardise
from pretrain.objectives.precision import full_precision
from pretrain.objectives.reduction import touched

_SIDE = {2: 8, 3: 4}
_EPS = 1e-5


class Thumbnail(nn.Module):
    """A linear map from the embedding to the image at 8 x 8 pixels, or 4 x 4 x 4 voxels, each an average.

    Objectives that ask dense queries alone train latents and tokens, and leave the embedding as it was: this trains
    it too. It is our addition. Embeddings and thumbnails are both standardised over the global batch: what all images
    have in common is not asked for, and a new network, whose embeddings differ little, is not kept busy by it.

    Args:
        backbone: the network.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.channels = backbone.in_chans
        self.maps = nn.ModuleDict(
            {str(axes): nn.Linear(backbone.embed_dim, self.channels * side**axes) for axes, side in _SIDE.items()}
        )

    def forward(self, embedding_BD: Tensor, images: Tensor, total_rows: int) -> Tensor:
        """The mean squared error of each image, ``B``; 1 is that of telling nothing.

        Args:
            embedding_BD: of the images, or of what was left of them.
            images: with the canonical number of channels.
            total_rows: images of all ranks together.
        """
        axes = images.ndim - 2
        pool = F.adaptive_avg_pool2d if axes == 2 else F.adaptive_avg_pool3d
        truth_BP, _, _ = standardise(pool(images, _SIDE[axes]).flatten(1), total_rows, _EPS)
        with full_precision(truth_BP):
            unit_BD, _, _ = standardise(embedding_BD.to(truth_BP.dtype), total_rows, _EPS)
            told_BP = self.maps[str(axes)](unit_BD)
            loss_B = (told_BP - truth_BP).square().mean(dim=1)
        return touched(loss_B, [module for name, module in self.maps.items() if name != str(axes)])
