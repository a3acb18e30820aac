"""Covariances of the tokens of cases under a frozen backbone, with their summaries, in one pass over the images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from finetune.cases import Cases
from finetune.fit.features import MOST_KEPT, Summaries, by_study, mean_over, pooled
from finetune.heads import CaseFeatures
from finetune.spd.covariance import covariance
from finetune.spd.vector import vectorised
from pretrain.backbone import Backbone


def width(backbone: Backbone) -> int:
    """Numbers of a study: embedding, mean and spread of the tokens, and their covariance."""
    dim = int(backbone.embed_dim)
    return 3 * dim + dim * (dim + 1) // 2


def cases_at_once(backbone: Backbone, cases: Cases) -> int:
    """Covariances of how many of these cases are held at a time."""
    assert cases.rows is not None
    studies = -(-len(cases.rows) // max(len(cases), 1))
    return max(1, MOST_KEPT // (width(backbone) * max(studies, 1)))


def moments(backbone: Backbone, cases: Cases) -> tuple[Summaries, np.ndarray]:
    """Summaries of each case, and the covariance of all its tokens; of a single token it is zero.

    Returns:
        :func:`~finetune.fit.features.summaries`, and float32 ``(N, D (D + 1) / 2)``, see
        :func:`~finetune.spd.vector.vectorised`.

    Raises:
        DataError: an image cannot be read, or covariances are larger than the memory.
    """
    dim = int(backbone.embed_dim)

    def read(features: CaseFeatures) -> Tensor:
        first = [features.embedding_BD, features.mean(), features.spread()]
        return torch.cat([*first, vectorised(covariance(features.tokens, features.weight_BT))], dim=1)

    rows_MV = by_study(backbone, cases, "covariances", width(backbone), read, dense=True)
    rows_MKD, within_MV = rows_MV[:, : 3 * dim].reshape(-1, 3, dim), rows_MV[:, 3 * dim :]
    if cases.bags is None:
        return Summaries(*np.moveaxis(rows_MKD, 1, 0)), within_MV
    bags, count = cases.bags, len(cases)
    mean_MD = torch.from_numpy(rows_MKD[:, 1].astype(np.float64))

    def square(mean_D: Tensor) -> np.ndarray:
        found: np.ndarray = vectorised(mean_D[..., :, None] * mean_D[..., None, :]).numpy()
        return found

    # Of all tokens of the case together: what varies within its studies and between them.
    between_NV = square(torch.from_numpy(mean_over(mean_MD.numpy(), bags, count)))
    all_NV = mean_over(within_MV + square(mean_MD), bags, count) - between_NV
    return pooled(rows_MKD.astype(np.float64), bags, count), all_NV.astype(np.float32)
