"""Latent collections: the part of the latent array that the metadata of a sample selects.

The idea of Medformer (Simionescu, arXiv 2510.23325): small trainable arrays carry organ, modality, dimensionality
and task, while the body of the network is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.vocabulary import Dimensionality, Modality, Organ, Task
from pretrain.backbone.bare import Repeated, Rows
from pretrain.metadata import Metadata

COLLECTIONS: dict[str, type[IntEnum]] = {
    "organ": Organ,
    "modality": Modality,
    "dimensionality": Dimensionality,
    "task": Task,
}


# Entries whose latents are drawn. Those that joined the vocabulary later begin as ``unknown``, so that a seed gives the
# weights that it gave before they joined.
_DRAWN = {"organ": 11, "modality": 12, "dimensionality": 3, "task": 7}


@dataclass(frozen=True)
class Kind:
    """What is known of one image of each sample.

    Attributes:
        modality_B: ids of :class:`~data_shards.vocabulary.Modality`.
        dimensionality: of the images.
        present_B: false where a sample lacks the image; None when all have it.
    """

    modality_B: Tensor
    dimensionality: Dimensionality
    present_B: Tensor | None = None


class LatentArray(nn.Module):
    """Shared latents followed by those that a sample's metadata select, one group per collection.

    Every collection is one registered parameter ``entries, n, dim`` with a row group per vocabulary id, so a row gets
    gradient when, and only when, its entry is in the batch. Weights from before an entry joined the vocabulary can be
    loaded: the new row begins as that of ``unknown``.

    Args:
        shared: latents that every sample has.
        per_entry: latents of each vocabulary entry; 0 leaves the collections out.
        dim: channels.

    Raises:
        ValueError: a count is negative, or there is no latent at all.
    """

    def __init__(self, shared: int, per_entry: int, dim: int) -> None:
        super().__init__()
        if min(shared, per_entry) < 0 or not shared + per_entry:
            raise ValueError(f"{shared} shared latents and {per_entry} of each entry: at least one latent is needed")
        self.shared = nn.Parameter(torch.randn(shared, dim) * 0.02)
        self.collections = nn.ParameterDict(
            {
                name: nn.Parameter(grown(torch.randn(_DRAWN[name], per_entry, dim) * 0.02, len(entries)))
                for name, entries in COLLECTIONS.items()
                if per_entry
            }
        )
        self.repeated, self.rows = Repeated(), Rows()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name, parameter in self.collections.items():
            grow_rows(state_dict, f"{prefix}collections.{name}", parameter)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, metadata: Metadata, kinds: Sequence[Kind]) -> Tensor:
        """The latent array ``B, N, dim`` of each sample of a batch.

        Args:
            metadata: organ and task of each sample.
            kinds: modality and dimensionality of each image of a sample, one entry per image. Their latents are
                averaged over the images that are there, so the order of the images does not matter.
        """
        shared_BND = self.repeated(self.shared, metadata.organ_B.shape[0])
        if not self.collections:
            return shared_BND
        shares_IB = _shares(kinds) if len(kinds) > 1 else None
        modality_IB = [kind.modality_B for kind in kinds]
        axes_IB = [torch.full_like(metadata.organ_B, int(kind.dimensionality)) for kind in kinds]
        groups = [
            self.rows(self.collections["organ"], metadata.organ_B),
            self._mean("modality", modality_IB, shares_IB),
            self._mean("dimensionality", axes_IB, shares_IB),
            self.rows(self.collections["task"], metadata.task_B),
        ]
        return torch.cat([shared_BND, *groups], dim=1)

    def _mean(self, name: str, ids_IB: Sequence[Tensor], shares_IB: Tensor | None) -> Tensor:
        latents_IBND = [self.rows(self.collections[name], ids_B) for ids_B in ids_IB]
        if shares_IB is None:
            return latents_IBND[0]
        shares = shares_IB.to(latents_IBND[0].dtype)[:, :, None, None]
        return torch.stack([share * latents for share, latents in zip(shares, latents_IBND, strict=True)]).sum(dim=0)


def _shares(kinds: Sequence[Kind]) -> Tensor:
    """``I, B``: for each image that a sample has, 1 over the number of those; 0 for each that it lacks."""
    there_IB = torch.stack(
        [
            torch.ones_like(kind.modality_B, dtype=torch.bool) if kind.present_B is None else kind.present_B
            for kind in kinds
        ]
    )
    return there_IB / there_IB.sum(dim=0).clamp(min=1)


def grow_rows(state_dict: dict[str, Any], name: str, parameter: Tensor) -> None:
    """Give the tensor ``name`` of weights from before entries joined the vocabulary the rows of ``parameter``.

    Every parameter with a row per vocabulary entry calls this from ``_load_from_state_dict``. A tensor that is not
    there, or does not fit otherwise, is left for torch to refuse.
    """
    rows = state_dict.get(name)
    if rows is not None and rows.shape[1:] == parameter.shape[1:] and 0 < len(rows) < len(parameter):
        state_dict[name] = grown(rows, len(parameter))


def grown(rows: Tensor, entries: int) -> Tensor:
    """Rows for all ``entries``; those that are missing are that of ``unknown``."""
    return torch.cat([rows, rows[:1].expand(entries - len(rows), *rows.shape[1:])])
