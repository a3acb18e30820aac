"""Multiple-instance learning: a score for each token or study of a case, and the score of the case pooled of them.

What is said of a case is made of what is said of its parts, so that these can be told: see :meth:`MilHead.instances`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from timm.layers import trunc_normal_
from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Task
from finetune.heads.base import Head, register_head
from finetune.heads.features import CaseFeatures
from finetune.heads.instances import InstanceKind, Instances
from finetune.heads.scales import averaged, spread
from finetune.mil import penalties
from finetune.mil.log_sum_exp import GeneralisedLogSumExp
from finetune.mil.masks import checked
from finetune.mil.pooling import (
    GatedAttention,
    MaxMinPooling,
    MaxPooling,
    MeanPooling,
    TopBottomPooling,
    weighted_sum,
)

Pooling = Literal["attention", "log_sum_exp", "max", "max_min", "mean", "top_bottom"]


class MilConfig(Document):
    """What instances are, how their scores are pooled, and what is asked of them beside the loss of the case."""

    instances: Literal["tokens", "studies"] = Field(
        "tokens", description="tokens: the cells of every image of a case; studies: the slices or images of a bag"
    )
    pooling: Pooling = Field("attention", description="from the scores of instances to that of the case")
    hidden: int = Field(0, ge=0, description="channels of a layer before the scores; 0 for none")
    norm: bool = Field(True, description="instances are normalised first")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of what is scored that is dropped in a training step")
    attention: int = Field(128, ge=1, description="channels of the gated attention")
    gated: bool = Field(True, description="whether attention is gated")
    top: float = Field(0.2, gt=0, description="of top_bottom: highest scores, a share below 1, else a number")
    bottom: float = Field(0.2, ge=0, description="of top_bottom: lowest scores, likewise; 0 for none")
    alpha: float = Field(0.7, ge=0, description="of top_bottom: weight of the lowest")
    betas: tuple[float, float] = Field(
        (1.0, 0.0), description="of log_sum_exp: where they start; 0 mean, +-inf extremes"
    )
    learn_betas: bool = Field(True, description="of log_sum_exp: whether they are learned")
    scales: tuple[int, ...] = Field(
        (1,), min_length=1, description="tokens are averaged over cells larger by these factors; each scale "
        "has scores of its own, and their shares are learned"
    )  # fmt: skip
    area: float = Field(0.0, ge=0, description="weight of the squared distance of the mean probability from area_share")
    area_share: float = Field(0.1, gt=0, le=1, description="share of the instances that show what the case is said to")
    sparsity: float = Field(0.0, ge=0, description="weight of the sum of the probabilities of instances, such as 1e-4")
    ranking: float = Field(0.0, ge=0, description="weight of the hinge that puts the top of a case above others")
    ranking_above: Literal["bottom", "negatives"] = Field(
        "bottom", description="bottom: of the same case; negatives: the tops of those in its batch that do not have it"
    )
    margin: float = Field(0.5, gt=0, le=1, description="of ranking, between probabilities")

    @field_validator("scales")
    @classmethod
    def _distinct(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        if min(scales) < 1 or len(set(scales)) < len(scales):
            raise ValueError("expected different factors of at least 1")
        return scales

    @field_validator("scales")
    @classmethod
    def _of_tokens(cls, scales: tuple[int, ...], info: Any) -> tuple[int, ...]:
        if scales != (1,) and info.data.get("instances") == "studies":
            raise ValueError("scales are of tokens; studies have none")
        return scales

    @field_validator("betas")
    @classmethod
    def _finite(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(abs(beta) < 1e6 for beta in betas):
            raise ValueError("expected finite numbers; max, mean and max_min are poolings of their own")
        return betas


def create_pooling(config: MilConfig) -> nn.Module:
    """The pooling of scores that was asked for; attention pools with weights and is none of them."""
    if config.pooling == "top_bottom":
        return TopBottomPooling(config.top, config.bottom, config.alpha)
    if config.pooling == "log_sum_exp":
        return GeneralisedLogSumExp(config.betas, learnable=config.learn_betas)
    return {"max": MaxPooling, "max_min": MaxMinPooling, "mean": MeanPooling}[config.pooling]()


class Scorer(nn.Module):
    """Scores of instances and of their bag, at one scale.

    Args:
        dim: channels of an instance.
        outputs: scores of each.
        config: of the head.
    """

    def __init__(self, dim: int, outputs: int, config: MilConfig) -> None:
        super().__init__()
        width = config.hidden or dim
        self.norm = nn.LayerNorm(dim) if config.norm else nn.Identity()
        self.hidden = nn.Sequential(nn.Linear(dim, width), nn.GELU()) if config.hidden else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, outputs)
        trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        attends = config.pooling == "attention"
        self.attention = GatedAttention(width, config.attention, gated=config.gated) if attends else None
        self.pooling = None if attends else create_pooling(config)

    def forward(self, instances_BHD: Tensor, mask_BH: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores of bags ``(B, O)``, of instances ``(B, H, O)``, and weights ``(B, H)`` where the pooling has them."""
        embeddings_BHD = self.dropout(self.hidden(self.norm(instances_BHD)))
        scores_BHO = self.linear(embeddings_BHD)
        if self.attention is not None:
            # A linear score of the weighted mean is the weighted mean of the scores.
            weights_BH = self.attention.weights(embeddings_BHD, mask_BH)
            return weighted_sum(weights_BH, scores_BHO), scores_BHO, weights_BH
        assert self.pooling is not None
        weights: Tensor | None = None
        if isinstance(self.pooling, MeanPooling):
            here_BH = checked(scores_BHO, mask_BH).to(scores_BHO.dtype)
            weights = here_BH / here_BH.sum(dim=1, keepdim=True)
        return self.pooling(scores_BHO, mask_BH), scores_BHO, weights


@register_head("mil")
class MilHead(Head):
    """The score of a case is pooled of the scores of its instances, of equal rank whichever study they are of.

    Args:
        dim: channels of the features.
        outputs: numbers per case.
        config: the options.
    """

    class Config(MilConfig):
        """As of :class:`MilConfig`."""

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__(dim, outputs, config)
        self.scorers = nn.ModuleList(Scorer(dim, outputs, config) for _ in config.scales)
        self.scale_logits = nn.Parameter(torch.zeros(len(config.scales))) if len(config.scales) > 1 else None

    @classmethod
    def check(cls, config: Any, task: Task, *, one_grid: bool) -> None:
        """Terms are for classes and labels, scales for images of one size."""
        if penalties.asked_for(config) and task in (Task.ordinal, Task.regression):
            raise ConfigError(penalties.NOT_FOR)
        if config.scales != (1,) and not one_grid:
            raise ConfigError(_no_grid(config.scales))

    @property
    def needs_tokens(self) -> bool:
        """Studies are read by their embeddings."""
        return bool(self.config.instances == "tokens")

    @property
    def instance_kind(self) -> InstanceKind:
        """As it was configured."""
        return "token" if self.needs_tokens else "study"

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``.

        Raises:
            ConfigError: scales were asked for, and the tokens of the cases have no common grid.
            DataError: a case has no instance.
        """
        pooled = [bags_BO for bags_BO, _, _ in self._scales(features)]
        return torch.einsum("s,sbo->bo", self._shares(pooled[0]), torch.stack(pooled))

    def instances(self, features: CaseFeatures) -> Instances:
        """Scores at each token, those of larger scales the same all over a cell; or of each study."""
        grid, mask_BH = features.grid, self._given(features)[1]
        found = self._scales(features)
        shares_S = self._shares(found[0][0])
        scores_BHO, weights_BH = found[0][1], found[0][2]
        if grid is not None and self.needs_tokens:
            pairs = list(zip(self.config.scales, found, strict=True))
            scores = torch.stack([spread(each, grid, factor) for factor, (_, each, _) in pairs])
            scores_BHO = torch.einsum("s,sbho->bho", shares_S, scores)
            if weights_BH is not None:
                spread_out = [
                    self._spread_weights(weights, grid, factor)
                    for factor, (_, _, weights) in pairs
                    if weights is not None
                ]
                weights_BH = torch.einsum("s,sbh->bh", shares_S, torch.stack(spread_out))
        return Instances(scores_BHO, weights_BH, mask_BH, self.instance_kind)

    @property
    def penalises(self) -> bool:
        """Whether one of the terms has a weight."""
        return penalties.asked_for(self.config)

    @property
    def last_layer(self) -> nn.Linear:
        """That of the scores at the largest scale."""
        scorer = self.scorers[-1]
        assert isinstance(scorer, Scorer)
        return scorer.linear

    @property
    def compares(self) -> bool:
        """Where the tops of other bags are to be lower."""
        return bool(self.config.ranking) and self.config.ranking_above == "negatives"

    def penalty(self, features: CaseFeatures, values: Tensor) -> Tensor | None:
        """The terms of :mod:`finetune.mil.penalties` with their weights, ``(B,)``.

        Raises:
            ConfigError: the labels are numbers or grades.
        """
        if not self.penalises:
            return None
        config = self.config
        positive_BO = penalties.presence(values, self.outputs)
        found = self.instances(features)
        probability_BHO = penalties.instance_probabilities(found.scores_BHO, exclusive=values.ndim == 1 < self.outputs)
        given = probability_BHO, found.present_BH, positive_BO
        total_B = probability_BHO.new_zeros(len(features))
        if config.area:
            total_B = total_B + config.area * penalties.area(*given, config.area_share)
        if config.sparsity:
            total_B = total_B + config.sparsity * penalties.sparsity(*given)
        if config.ranking:
            within = config.ranking_above == "bottom"
            rank = penalties.ranking_within if within else penalties.ranking_between
            total_B = total_B + config.ranking * rank(*given, config.margin)
        return total_B

    def _given(self, features: CaseFeatures) -> tuple[Tensor, Tensor | None]:
        if self.needs_tokens:
            return features.tokens, features.mask_BT
        if features.studies_BSD is None:
            return features.embedding_BD[:, None], None
        return features.studies_BSD, features.present_BS

    def _scales(self, features: CaseFeatures) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        instances_BHD, mask_BH = self._given(features)
        scales, grid = self.config.scales, features.grid
        if scales == (1,):
            return [self.scorers[0](instances_BHD, mask_BH)]
        if grid is None:
            raise ConfigError(_no_grid(scales))
        found = []
        for scorer, factor in zip(self.scorers, scales, strict=True):
            cells_BCD = averaged(instances_BHD, grid, factor)
            # A study is there with all its tokens, or not.
            share_BC1 = None if mask_BH is None else averaged(mask_BH[..., None].to(cells_BCD.dtype), grid, factor)
            found.append(scorer(cells_BCD, None if share_BC1 is None else share_BC1[..., 0] > 0))
        return found

    def _shares(self, like: Tensor) -> Tensor:
        return like.new_ones(1) if self.scale_logits is None else self.scale_logits.softmax(dim=0)

    @staticmethod
    def _spread_weights(weights_BC: Tensor, grid: tuple[int, ...], factor: int) -> Tensor:
        """The weight of a cell in equal parts at its tokens."""
        cells = spread(weights_BC[..., None], grid, factor)
        counts = spread(cells.new_tensor(_tokens_in(grid, factor))[None, :, None], grid, factor)
        return (cells / counts.repeat(1, cells.shape[1] // counts.shape[1], 1))[..., 0]


def _no_grid(scales: tuple[int, ...]) -> str:
    return (
        f"head mil: scales {', '.join(map(str, scales))} need one grid of tokens; these cases have images of different "
        "sizes, or several in a study"
    )


def _tokens_in(grid: tuple[int, ...], factor: int) -> list[float]:
    """How many tokens each cell has, row-major."""
    counts = torch.ones(())
    for length in grid:
        sides = torch.tensor([min(factor, length - start) for start in range(0, length, factor)], dtype=torch.float64)
        counts = (counts[..., None] * sides).to(torch.float64)
    return counts.flatten().tolist()
