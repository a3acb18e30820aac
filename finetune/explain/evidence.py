"""The number that is explained: how strongly a fitted model speaks for a class, as a function that has gradients.

It is the log odds of the probability that ``predict`` gives, ``log p_c / (1 - p_c)``. Of a network with one logit that
is the logit itself; of several classes it is what tells the class from all others together. Unlike the probability it
does not level off where the model is sure, so that small changes still show, and what it is made of adds up. Of a
regression it is the number, in its unit.

Shape suffixes: B cases, C classes, labels or numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from data_shards.vocabulary import Task
from finetune.classifier.member import Member
from finetune.fit.linear import RAW, TANGENT, LinearModel, LinearVote
from finetune.fit.tangent import SHRINKAGE, TangentSpace
from finetune.heads import CaseFeatures
from finetune.spd.covariance import covariance, shrunk
from finetune.spd.eigen import logarithm
from finetune.spd.vector import vectorised
from finetune.targets import Target


def log_scores(member: Member, features: CaseFeatures | None, pixels_BF: Tensor | None) -> Tensor:
    """What :meth:`~finetune.classifier.member.Member.log_scores` gives, with gradients, float64 ``(B, C)``.

    Args:
        member: a fitted model.
        features: of the cases; None where it reads raw pixels alone.
        pixels_BF: raw pixels, where it reads them.
    """
    if isinstance(member.head, LinearVote):
        return _of_vote(member.head, features, pixels_BF)
    assert features is not None
    offset = None if member.offset is None else torch.from_numpy(member.offset)
    return member.target.log_scores(member.head(features).double().cpu(), offset)


def evidence(target: Target, log_scores_BC: Tensor, place: int, temperature: float = 1.0) -> Tensor:
    """Log odds of a class or label, or the number itself, ``(B,)``.

    Args:
        target: whose log scores.
        log_scores_BC: of :func:`log_scores`.
        place: which class, label or number.
        temperature: of the predictor.
    """
    mine_B = log_scores_BC[:, place]
    if not target.classifies:
        return mine_B
    if target.task is Task.multilabel:
        return mine_B / temperature
    others = [column for column in range(log_scores_BC.shape[1]) if column != place]
    return mine_B / temperature - (log_scores_BC[:, others] / temperature).logsumexp(dim=1)


def _of_vote(vote: LinearVote, features: CaseFeatures | None, pixels_BF: Tensor | None) -> Tensor:
    offset = None if vote.offset is None else torch.from_numpy(vote.offset)
    each = []
    for model in vote.models:
        weight_KD, bias_K = torch.from_numpy(model.affine.weight_KD), torch.from_numpy(model.affine.bias_K)
        logits_BK = _scaled(model, features, pixels_BF) @ weight_KD.mT + bias_K
        each.append(vote.target.log_scores(logits_BK, offset))
    return each[0] if len(each) == 1 else _mean(vote.target, each)


def _scaled(model: LinearModel, features: CaseFeatures | None, pixels_BF: Tensor | None) -> Tensor:
    """What the linear model reads, after its scaling."""
    if model.reads == RAW:
        assert pixels_BF is not None
        read = pixels_BF
    else:
        assert features is not None
        if isinstance(model.scaling, TangentSpace):
            assert model.reads == TANGENT
            return _tangent(model.scaling, features)
        read = features.summary(model.reads)
    assert not isinstance(model.scaling, TangentSpace)
    return (read.double().cpu() - torch.from_numpy(model.scaling.mean_D)) / torch.from_numpy(model.scaling.scale_D)


def _tangent(space: TangentSpace, features: CaseFeatures) -> Tensor:
    """As :class:`~finetune.fit.tangent.TangentSpace` maps covariances."""
    weights = None if features.weight_BT is None else features.weight_BT.double().cpu()
    tokens_BTK = features.tokens.double().cpu() @ torch.from_numpy(space.basis_DK)
    whitener_KK = torch.from_numpy(space.whitener_KK)
    matrix = shrunk(covariance(tokens_BTK, weights), SHRINKAGE, space.floor)
    return vectorised(logarithm(whitener_KK @ matrix @ whitener_KK)) / space.scale


def _mean(target: Target, each: Sequence[Tensor]) -> Tensor:
    """The log scores of the mean of the probabilities; the mean itself of numbers."""
    stacked = torch.stack(list(each))
    if not target.classifies:
        return stacked.mean(dim=0)
    if target.task is Task.multilabel:
        log_yes, log_no = (torch.nn.functional.logsigmoid(sign * stacked).logsumexp(dim=0) for sign in (1, -1))
        return log_yes - log_no
    return stacked.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(each))
