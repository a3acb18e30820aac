"""How far the right answer is from being said with a margin."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.targets import Target
from finetune.targets.base import ClassTarget


def margin_loss(target: Target, logits_NK: Tensor, values: Tensor, margin: float) -> Tensor:
    """``max(0, m - d)`` of each case, ``(N,)`` (our reading; the abstract says that the loss is based on a margin).

    For one class per case ``d = log p_y - max_{j != y} log p_j``, by which the right class is above the best other: of
    two classes and of a softmax a difference of logits. For several labels it is the mean over labels, ``d`` the log
    odds of what is right.

    Args:
        target: classes or labels.
        logits_NK: of the cases.
        values: their labels, as the target's loss takes them.
        margin: ``m``, in log odds.
    """
    scores_NC = target.log_scores(logits_NK)
    if isinstance(target, ClassTarget):
        right_N1 = scores_NC.gather(1, values[:, None])
        others_NC = scores_NC.scatter(1, values[:, None], -torch.inf)
        return F.relu(margin - (right_N1[:, 0] - others_NC.amax(dim=1)))
    sign_NC = 2 * values.to(scores_NC.dtype) - 1
    return F.relu(margin - sign_NC * scores_NC).mean(dim=1)
