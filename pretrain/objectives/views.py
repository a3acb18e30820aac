"""The augmented views of one batch, as objectives receive them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pretrain.backbone import Medformer
from pretrain.backbone.position import Spacing
from pretrain.metadata import Metadata


@dataclass
class Views:
    """Two or more views of the same images.

    Attributes:
        images: one tensor of normalised images per view, ``B,C,H,W`` or ``B,C,D,H,W``, own rows only. A coarser view
            has fewer pixels than the others.
        metadata: one per view, since metadata dropout differs between views.
        rows: how many images of the global batch each rank holds.
        spacing_mm: one per view: distance of the voxels of its image, times how much coarser the view is; see
            :data:`~pretrain.backbone.position.Spacing`. The crop of a view changes its scale too, along each axis by
            another factor, and when it is rotated no spacing along its axes describes it: so that is not counted.
    """

    images: tuple[Tensor, ...]
    metadata: tuple[Metadata, ...]
    rows: tuple[int, ...]
    spacing_mm: tuple[Spacing, ...]
    _embeddings: dict[tuple[nn.Module, bool, bool], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    @property
    def total_rows(self) -> int:
        """Images in the global batch."""
        return sum(self.rows)

    def embeddings(self, backbone: Medformer) -> tuple[Tensor, ...]:
        """The embedding ``B, D`` of each view.

        Computed once per network, gradient mode and training mode, so that objectives that share views share the
        cost, and none gets what another has made without gradient or in evaluation.
        """
        key = (backbone, torch.is_grad_enabled(), backbone.training)
        if key not in self._embeddings:
            embed = self._together if len({images.shape for images in self.images}) == 1 else self._one_by_one
            self._embeddings[key] = embed(backbone)
        return self._embeddings[key]

    def embedded(self, backbone: Medformer) -> tuple[Tensor, ...] | None:
        """What :meth:`embeddings` has given an objective that trains ``backbone``; None when none has asked."""
        return self._embeddings.get((backbone, True, True))

    def _together(self, backbone: Medformer) -> tuple[Tensor, ...]:
        metadata = Metadata(
            torch.cat([m.organ_B for m in self.metadata]),
            torch.cat([m.modality_B for m in self.metadata]),
            torch.cat([m.task_B for m in self.metadata]),
        )
        # Views of one shape are of one resolution, so they have the same spacing.
        spacing_mm = self.spacing_mm[0]
        if isinstance(spacing_mm, Tensor):
            spacing_mm = spacing_mm.repeat(len(self.images), 1)
        return backbone.features(torch.cat(self.images), metadata, spacing_mm).embedding_BD.chunk(len(self.images))

    def _one_by_one(self, backbone: Medformer) -> tuple[Tensor, ...]:
        views = zip(self.images, self.metadata, self.spacing_mm, strict=True)
        return tuple(backbone.features(*view).embedding_BD for view in views)
