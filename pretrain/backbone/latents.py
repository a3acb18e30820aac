"""Latent collections: the part of the latent array that the metadata of a sample selects.

The idea of Medformer (Simionescu, arXiv 2510.23325): small trainable arrays carry organ, modality, dimensionality
and task, while the body of the network is shared.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.vocabulary import Dimensionality, Modality, Organ, Task
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


class LatentArray(nn.Module):
    """Shared latents followed by those that a sample's metadata select, one group per collection.

    Every collection is one registered parameter ``entries, n, dim`` with a row group per vocabulary id, so a row gets
    gradient when, and only when, its entry is in the batch. Weights from before an entry joined the vocabulary can be
    loaded: the new row begins as that of ``unknown``.

    Args:
        shared: latents that every sample has.
        per_entry: latents of each vocabulary entry.
        dim: channels.
    """

    def __init__(self, shared: int, per_entry: int, dim: int) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.randn(shared, dim) * 0.02)
        self.collections = nn.ParameterDict(
            {
                name: nn.Parameter(_grown(torch.randn(_DRAWN[name], per_entry, dim) * 0.02, len(entries)))
                for name, entries in COLLECTIONS.items()
            }
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        for name, parameter in self.collections.items():
            rows = state_dict.get(f"{prefix}collections.{name}")
            if rows is not None and rows.shape[1:] == parameter.shape[1:] and 0 < len(rows) < len(parameter):
                state_dict[f"{prefix}collections.{name}"] = _grown(rows, len(parameter))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, metadata: Metadata, dimensionality: Dimensionality) -> Tensor:
        """The latent array ``B, N, dim`` of each sample of a batch of one dimensionality."""
        ids = {
            "organ": metadata.organ_B,
            "modality": metadata.modality_B,
            "dimensionality": torch.full_like(metadata.organ_B, int(dimensionality)),
            "task": metadata.task_B,
        }
        groups = [self.collections[name][ids[name]] for name in COLLECTIONS]
        return torch.cat([self.shared.expand(len(metadata.organ_B), -1, -1), *groups], dim=1)


def _grown(rows: Tensor, entries: int) -> Tensor:
    """Rows for all ``entries``; those that are missing are that of ``unknown``."""
    return torch.cat([rows, rows[:1].expand(entries - len(rows), -1, -1)])
