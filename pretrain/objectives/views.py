"""The augmented views of one batch, as objectives receive them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pretrain.backbone import Medformer
from pretrain.metadata import Metadata


@dataclass
class Views:
    """Two or more views of the same images.

    Attributes:
        images: one ``B,C,H,W`` tensor of normalised images per view, own rows only.
        metadata: one per view, since metadata dropout differs between views.
        rows: how many images of the global batch each rank holds.
    """

    images: tuple[Tensor, ...]
    metadata: tuple[Metadata, ...]
    rows: tuple[int, ...]
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
            embedding = backbone.features(torch.cat(self.images), together).embedding_BD
            self._embeddings[id(backbone)] = embedding.chunk(len(self.images))
        return self._embeddings[id(backbone)]
