"""Attention rollout through the latents: how much of each input token is in what the network gives.

Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020, section 3: a layer with a residual passes on
``W = (A + I) / 2``, with ``A`` the mean over heads, and layers multiply. In a Perceiver IO (our reading) latents begin
with nothing of the image, ``R = 0``; where they read tokens, ``R <- (A + R) / 2``; where they attend to each other,
``R <- (A R + R) / 2``; and an output query has ``(A R + e) / 2``, where ``e`` is the token that a dense query is made
of, and nothing for that of the embedding; where the embedding then asks the tokens, its row becomes ``(A + row) / 2``.
Rows need not add up to 1: what is missing is of the latents themselves.

That says what is looked at, not for which class. The form with gradients (Chefer, Gur and Wolf, Generic
attention-model explainability, ICCV 2021, eq. 5 to 7 and 10) takes ``A <- mean over heads of (dy/dA * A)+`` and adds:
``R <- R + A`` where latents read, ``R <- R + A R`` where they mix, ``e + A R`` for an output, ``row + A`` where the
embedding asks the tokens.

The outputs are weighted by their share in the evidence, ``|gradient . output|``, which makes it one row, whatever the
head reads of them.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.classifier.member import Member
from finetune.explain.attention import Layers, explicit
from finetune.explain.base import CaseMethod, register_method
from finetune.explain.gradients import Outputs, Pass, outputs, passes, tokens_on_the_way
from finetune.explain.question import Question, perceiver_of, require_network
from finetune.explain.space import CellMap, of_tokens, token_grid
from pretrain.backbone.embedding import PooledTokens


@register_method("rollout")
class Rollout(CaseMethod):
    """Attention multiplied from the output back to the tokens that the latents read."""

    unit = "share of attention"

    class Config(Document):
        """Whether the class has a say."""

        gradients: bool = Field(
            True, description="attention counts by its gradient; else what is looked at for any class"
        )

    def check(self, member: Member) -> None:
        """There has to be attention in it."""
        require_network(member, self.name)
        if isinstance(perceiver_of(member, self.name).reader, PooledTokens):
            raise ConfigError(
                f"method {self.name} follows attention, and the embedding of this network also pools the tokens "
                "(embedding=pooled_tokens); use occlusion or grad_cam"
            )

    def maps(self, question: Question) -> list[CellMap]:
        """A map of each image of the case; in all of them one unit is the same."""
        backbone, found = perceiver_of(question.member, self.name), outputs(question)
        shares, said = output_shares(found), dict[int, Tensor]()
        runs = passes(question, found)
        # Tokens are leaves so that everything behind them has a gradient, also where no weight asks for one.
        with explicit(backbone) as layers, tokens_on_the_way(backbone) as kept:
            for run in runs:
                rows_BT = self._rows(layers, run, [shares[place] for place in run.places])
                for place, row_T in zip(run.places, rows_BT, strict=True):
                    said[place] = row_T
                layers.clear()
                kept.clear()
        maps = []
        for number, study in enumerate(question.studies):
            counts = [math.prod(token_grid(backbone, image)) for _, image in study.sorted_images]
            for (name, image), values_T in zip(study.sorted_images, said[number].split(counts), strict=True):
                maps.append(of_tokens(backbone, number, name, image, values_T.float().cpu().numpy()))
        return maps

    def _rows(self, layers: Layers, run: Pass, shares: list[Tensor]) -> Tensor:
        """``B, T``, the tokens of the images of a study one after the other."""
        if self.config.gradients:
            found = iter(run.grad(layers.all))

            def weighed(weights: Tensor) -> Tensor:
                return (next(found) * weights.detach()).clamp(min=0).mean(dim=1)

            reading = {number: weighed(each) for number, each in layers.reading.items()}
            mixing = {number: weighed(each) for number, each in layers.mixing.items()}
            answering, again = weighed(layers.answering[0]), [weighed(each) for each in layers.again]
            rolled_BQT = relevance(reading, mixing, answering, *again)
        else:
            rolled_BQT = rollout(
                {number: each.detach().mean(dim=1) for number, each in layers.reading.items()},
                {number: each.detach().mean(dim=1) for number, each in layers.mixing.items()},
                *(each.detach().mean(dim=1) for each in (*layers.answering, *layers.again)),
            )
        share_BQ = torch.stack(shares).to(rolled_BQT)
        return (share_BQ[:, None] @ rolled_BQT)[:, 0]


def rollout(
    reading: dict[int, Tensor], mixing: dict[int, Tensor], answering_BQN: Tensor, again_B1T: Tensor | None = None
) -> Tensor:
    """Abnar and Zuidema's product, see the head of this file.

    Args:
        reading: ``B, N, T`` by the number of the layer before which latents read.
        mixing: ``B, N, N`` of each layer.
        answering_BQN: of the query of the embedding, and of dense queries after it.
        again_B1T: of the embedding, where it asks the tokens.

    Returns:
        ``B, Q, T``.
    """
    carried_BNT = torch.zeros_like(reading[0])
    for number in range(max(len(mixing), 1)):
        if number in reading:
            carried_BNT = (reading[number] + carried_BNT) / 2
        if number in mixing:
            carried_BNT = (mixing[number] @ carried_BNT + carried_BNT) / 2
    answers_BQT = (answering_BQN @ carried_BNT + _own(answering_BQN, carried_BNT)) / 2
    if again_B1T is None:
        return answers_BQT
    return torch.cat([(again_B1T + answers_BQT[:, :1]) / 2, answers_BQT[:, 1:]], dim=1)


def relevance(
    reading: dict[int, Tensor], mixing: dict[int, Tensor], answering_BQN: Tensor, again_B1T: Tensor | None = None
) -> Tensor:
    """Chefer's sum, see the head of this file; shapes as of :func:`rollout`."""
    carried_BNT = torch.zeros_like(reading[0])
    for number in range(max(len(mixing), 1)):
        if number in reading:
            carried_BNT = carried_BNT + reading[number]
        if number in mixing:
            carried_BNT = carried_BNT + mixing[number] @ carried_BNT
    answers_BQT = answering_BQN @ carried_BNT + _own(answering_BQN, carried_BNT)
    if again_B1T is None:
        return answers_BQT
    return torch.cat([again_B1T + answers_BQT[:, :1], answers_BQT[:, 1:]], dim=1)


def _own(answering_BQN: Tensor, carried_BNT: Tensor) -> Tensor:
    """What an output has by its query, ``Q, T``: the embedding nothing, each dense output its own token."""
    queries, tokens = answering_BQN.shape[1], carried_BNT.shape[2]
    own_QT = carried_BNT.new_zeros(queries, tokens)
    if queries == 1 + tokens:
        own_QT[1:] = torch.eye(tokens, dtype=own_QT.dtype, device=own_QT.device)
    return own_QT


def output_shares(found: list[Outputs]) -> list[Tensor]:
    """Of each study the share of its embedding, and of its dense tokens, in the evidence; 1 in sum over the case."""
    parts = []
    for each in found:
        part = [(each.by_embedding_D * each.values.embedding_D).sum(dim=-1, keepdim=True)]
        if each.by_tokens_TD is not None and each.values.tokens_TD is not None:
            part.append((each.by_tokens_TD * each.values.tokens_TD).sum(dim=-1))
        parts.append(torch.cat(part).abs())
    total = torch.cat(parts).sum()
    return [part / total if total > 0 else torch.full_like(part, 1 / sum(map(len, parts))) for part in parts]
