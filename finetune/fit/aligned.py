"""A whole network on images of two sites: labels of one, and features of both that shall be alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from data_shards.support.errors import DataError
from finetune.alignment import Alignment
from finetune.cases import Cases
from finetune.fit.learners import ImageLearner
from finetune.fit.network import Network
from finetune.heads import CaseFeatures
from finetune.heads.features import SUMMARIES, width_of
from finetune.objective import Objective
from finetune.steppers.base import cut, permutations
from finetune.strategies import Rates, Strategy

_DRAWS = 5
"""Added to the seed of the draws of target cases, so that they are not those of the labelled ones."""


def read_by(network: Network) -> str:
    """Which summary of a case is aligned: what the head reads; the mean of the tokens where it reads each of them."""
    head = network.readout.head
    reads = str(getattr(head, "reads", ""))
    return reads if reads in SUMMARIES else ("mean" if head.needs_tokens else "embedding")


def width_read(network: Network) -> int:
    """How many numbers :func:`read_by` gives."""
    return width_of(read_by(network), int(network.backbone.embed_dim))


class AlignedLearner(ImageLearner):
    """An :class:`ImageLearner` to whose loss the distance between the sites in each batch is added.

    Beside every labelled batch as many cases of the target site are drawn, augmented like it; labelled cases of the
    target site are on its side of the distance. A batch with fewer than two cases of the source site has none.

    Args:
        network: what is trained; the strategy has prepared its backbone.
        cases: labelled ones and, after them, those of the target site.
        strategy: what moves.
        rates: peak learning rates.
        augmented: whether training steps see augmented images.
        seed: fixes the augmentation and the draws.
        alignment: the distance; its weights learn at the rate of the head.
        target_rows: the cases of the target site.
        batch_size: cases of a labelled batch.
        steps: length of the training.

    Attributes:
        distance: what the alignment added in the last step; NaN before the first one.

    Raises:
        DataError: there are fewer than two cases of the target site, or memory has no room for a batch of each site.
    """

    def __init__(
        self,
        network: Network,
        cases: Cases,
        strategy: Strategy,
        rates: Rates,
        *,
        augmented: bool,
        seed: int,
        alignment: Alignment,
        target_rows: np.ndarray,
        batch_size: int,
        steps: int,
    ) -> None:
        super().__init__(network, cases, strategy, rates, augmented=augmented, seed=seed)
        if len(target_rows) < 2:
            raise DataError(f"{len(target_rows)} images of the target site; an alignment needs two, better a hundred")
        if self.at_once < 2 * batch_size:
            raise DataError(
                f"memory has room for {self.at_once} images at once, and an alignment compares {batch_size} of each "
                "site; give a smaller batch_size"
            )
        self.distance = float("nan")
        self._alignment, self._steps = alignment, steps
        self._is_target = np.zeros(len(cases), bool)
        self._is_target[target_rows] = True
        self._draws = cut(permutations(target_rows, seed + _DRAWS), min(batch_size, len(target_rows)))
        own = list(alignment.parameters())
        if own:
            group = {"params": own, "lr": rates.head, "weight_decay": rates.weight_decay}
            self._stages = [replace(stage, groups=[*stage.groups, group]) for stage in self._stages]

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """The loss of each augmented case with what its head adds, and the distance between the sites, ``(B,)``."""
        features = self._features(rows, step, None)
        loss_B = self.readout.losses(features, objective, rows)
        beside = next(self._draws)
        of_source = torch.from_numpy(np.flatnonzero(~self._is_target[rows]))
        if len(of_source) < 2:
            return loss_B
        source_MD = self._read(features).index_select(0, of_source.to(loss_B.device))
        target_MD = self._read(self._features(beside, step, None))
        distance = self._alignment(source_MD, target_MD, step / max(self._steps, 1))
        self.distance = float(distance.detach())
        return loss_B + distance

    def _read(self, features: CaseFeatures) -> Tensor:
        return features.summary(read_by(self._network))
