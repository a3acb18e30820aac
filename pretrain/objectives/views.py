"""The augmented views of one batch, as objectives receive them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pretrain.backbone import Medformer
from pretrain.backbone.position import Spacing
from pretrain.metadata import Metadata


@dataclass
class Views:
    """Two or more views of the same images.

    Attributes:
        images: one tensor of normalised images per view, ``B,C,H,W`` or ``B,C,D,H,W``, own rows only.
        metadata: one per view, since metadata dropout differs between views.
        rows: how many images of the global batch each rank holds.
        spacing_mm: distance of voxels of the images that the views are made of, one for all or one per image. The crop
            of a view changes its scale, along each axis by another factor, and when it is rotated too no spacing along
            its axes describes it: so every view counts as having the spacing of its image.
    """

    images: tuple[Tensor, ...]
    metadata: tuple[Metadata, ...]
    rows: tuple[int, ...]
    spacing_mm: Spacing = None
    _embeddings: dict[int, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    @property
    def total_rows(self) -> int:
        """Images in the global batch."""
        return sum(self.rows)

    def embeddings(self, backbone: Medformer) -> tuple[Tensor, ...]:
        """The embedding ``B, D`` of each view.

        Computed once per backbone, so that objectives that share views share the cost.
        """
        if id(backbone) not in self._embeddings:
            together = Metadata(
                torch.cat([m.organ_B for m in self.metadata]),
                torch.cat([m.modality_B for m in self.metadata]),
                torch.cat([m.task_B for m in self.metadata]),
            )
            spacing_mm = self.spacing_mm
            if isinstance(spacing_mm, Tensor):
                spacing_mm = spacing_mm.repeat(len(self.images), 1)
            embedding = backbone.features(torch.cat(self.images), together, spacing_mm).embedding_BD
            self._embeddings[id(backbone)] = embedding.chunk(len(self.images))
        return self._embeddings[id(backbone)]
