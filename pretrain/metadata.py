"""What is known about the images of a batch, as vocabulary ids: it selects the latents of the backbone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_shards.vocabulary import Modality, Organ, Task


@dataclass(frozen=True)
class Metadata:
    """Vocabulary ids of the ``B`` images of a batch; dimensionality follows from the image itself.

    Attributes:
        organ_B: ids of :class:`~data_shards.vocabulary.Organ`, int64.
        modality_B: ids of :class:`~data_shards.vocabulary.Modality`, int64.
        task_B: ids of :class:`~data_shards.vocabulary.Task`, int64.
    """

    organ_B: Tensor
    modality_B: Tensor
    task_B: Tensor

    @classmethod
    def uniform(
        cls,
        count: int,
        organ: Organ = Organ.unknown,
        modality: Modality = Modality.unknown,
        task: Task = Task.unknown,
        device: torch.device | str = "cpu",
    ) -> Metadata:
        """The same ids for each of ``count`` images."""
        return cls(
            *(torch.full((count,), int(entry), dtype=torch.int64, device=device) for entry in (organ, modality, task))
        )

    def to(self, device: torch.device) -> Metadata:
        """The same ids on ``device``."""
        return Metadata(
            self.organ_B.to(device, non_blocking=True),
            self.modality_B.to(device, non_blocking=True),
            self.task_B.to(device, non_blocking=True),
        )
