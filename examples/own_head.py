"""A head of one's own, set against the linear one on the same cases and folds.

A head is a class with a name. As a file in ``finetune/heads/`` it is found by the command line too::

    python examples/own_head.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from synthetic import write_pictures
from torch import Tensor, nn

from data_shards.support.documents import Document
from finetune.heads.base import Head, register_head
from finetune.heads.features import CaseFeatures
from medformer import FewLabelClassifier, cross_validated, read_cases


@register_head("mean_max")
class MeanMaxHead(Head):
    """Linear in the mean and the largest value of each channel over the tokens of a case."""

    class Config(Document):
        """No options."""

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__(dim, outputs, config)
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(2 * dim, outputs)

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``."""
        tokens_BTD = self.norm(features.tokens)
        if features.mask_BT is None:
            mean_BD, largest_BD = tokens_BTD.mean(dim=1), tokens_BTD.amax(dim=1)
        else:  # cases of different size are padded
            there_BT1 = features.mask_BT[..., None]
            mean_BD = (tokens_BTD * there_BT1).sum(dim=1) / there_BT1.sum(dim=1)
            largest_BD = tokens_BTD.masked_fill(~there_BT1, -torch.inf).amax(dim=1)
        outputs_BO: Tensor = self.linear(torch.cat([mean_BD, largest_BD], dim=1))
        return outputs_BO


def main() -> None:
    """Compare."""
    folder = Path("runs/example/pictures")
    cases = read_cases(folder, csv=write_pictures(folder, subjects=24), size=32)["train"]
    for head in ("linear", "mean_max"):
        # Nothing is calibrated here, which would fit every classifier several times more.
        classifier = FewLabelClassifier(
            "medformer_nano", head=head, max_steps=20, learning_rate=3e-3, calibrate=False, seed=0
        )
        estimate = cross_validated(classifier.fit(cases), cases, folds=2, repeats=1)
        print(f"{head}: {estimate.told[0]}")


if __name__ == "__main__":
    main()
