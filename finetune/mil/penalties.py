"""Terms on the scores of instances that are added to the loss of a case: area, sparsity, ranking.

Only what a label says of a bag is used: an output is present in it or not. ``positive_BO`` is 1 where it is present.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.support.errors import ConfigError
from finetune.mil.masks import checked, masked_max, masked_mean, masked_min

NOT_FOR = "head mil: area, sparsity and ranking are for classes and labels, not for numbers and grades"


def asked_for(config: Any) -> bool:
    """Whether one of the terms has a weight in the options of a head."""
    return bool(config.area or config.sparsity or config.ranking)


def presence(values: Tensor, outputs: int) -> Tensor:
    """Which outputs are present in each case, 0 or 1 ``(B, O)``.

    Args:
        values: as a target's loss takes them: classes ``(B,)``, or 0/1 of each of several labels ``(B, O)``.
        outputs: of the head: 1 for two classes.

    Raises:
        ConfigError: the labels are numbers or grades, of which none is present or absent.
    """
    classes = values.ndim == 1 and not values.is_floating_point()
    if classes and int(values.max()) < max(outputs, 2):
        return F.one_hot(values, outputs) if outputs > 1 else values[:, None]
    if values.ndim == 2 and values.shape[1] == outputs and bool(((values == 0) | (values == 1)).all()):
        return values
    raise ConfigError(NOT_FOR)


def instance_probabilities(scores_BHO: Tensor, *, exclusive: bool) -> Tensor:
    """Probabilities of the outputs at each instance: softmax where one class excludes the others, else sigmoid."""
    return scores_BHO.softmax(dim=-1) if exclusive else scores_BHO.sigmoid()


def area(probability_BHO: Tensor, mask_BH: Tensor | None, positive_BO: Tensor, share: float) -> Tensor:
    """Squared distance of the mean probability from the share that is known, of outputs that are present, ``(B,)``.

    Jia et al., Constrained deep weak supervision for histopathology image segmentation, TMI 2017, the area constraint.

    Args:
        probability_BHO: of the instances.
        mask_BH: true where there is an instance.
        positive_BO: which outputs are present.
        share: of the instances that show a present output.
    """
    mean_BO = masked_mean(probability_BHO, checked(probability_BHO, mask_BH))
    return (positive_BO.to(mean_BO.dtype) * (mean_BO - share).square()).sum(dim=1)


def sparsity(probability_BHO: Tensor, mask_BH: Tensor | None, positive_BO: Tensor) -> Tensor:
    """The sum of the probabilities over the instances, of outputs that are present, ``(B,)``.

    Zhu et al., Deep multi-instance networks with sparse label assignment for whole mammogram classification, MICCAI
    2017, eq. 6: an l1 norm, so it grows with the number of instances. Where an output is absent the loss lowers its
    probabilities already.
    """
    mask_BH = checked(probability_BHO, mask_BH)
    sum_BO = probability_BHO.masked_fill(~mask_BH[..., None], 0).sum(dim=1)
    return (positive_BO.to(sum_BO.dtype) * sum_BO).sum(dim=1)


def ranking_within(probability_BHO: Tensor, mask_BH: Tensor | None, positive_BO: Tensor, margin: float) -> Tensor:
    """How far the top of a bag is less than ``margin`` above its own bottom, of outputs that are present, ``(B,)``."""
    mask_BH = checked(probability_BHO, mask_BH)
    gap_BO = masked_max(probability_BHO, mask_BH) - masked_min(probability_BHO, mask_BH)
    # One instance has no bottom of its own.
    counts_BO = positive_BO.to(gap_BO.dtype) * (mask_BH.sum(dim=1, keepdim=True) > 1)
    return (counts_BO * F.relu(margin - gap_BO)).sum(dim=1)


def ranking_between(probability_BHO: Tensor, mask_BH: Tensor | None, positive_BO: Tensor, margin: float) -> Tensor:
    """How far the top of a bag is less than ``margin`` above the tops of those without the output, ``(B,)``.

    The mean over these bags (Sultani et al., Real-world anomaly detection in surveillance videos, CVPR 2018, eq. 4,
    over all pairs). Zero where no bag is without the output.
    """
    top_BO = masked_max(probability_BHO, checked(probability_BHO, mask_BH))
    positive_BO = positive_BO.to(top_BO.dtype)
    absent_BO = 1 - positive_BO
    short_BBO = F.relu(margin - top_BO[:, None] + top_BO[None])
    mean_BO = torch.einsum("bao,ao->bo", short_BBO, absent_BO) / absent_BO.sum(dim=0).clamp(min=1)
    return (positive_BO * mean_BO).sum(dim=1)
