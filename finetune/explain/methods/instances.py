"""What a head that scores parts of a case says of each: its tokens, or the studies of a bag, in their places.

Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018, section 2.4: the weights of the
pooling say which instances count. What they say is another thing, the evidence of each: the score that the case would
have if all its instances were like this one. A heavy instance may speak against the class; ``share`` is the product of
the two, what each adds to the evidence of the case beyond the mean instance.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.classifier.instances import instance_readout
from finetune.classifier.member import Member
from finetune.explain.base import CaseMethod, register_method
from finetune.explain.evidence import evidence
from finetune.explain.question import Question
from finetune.explain.space import CellMap, of_tokens, of_whole, token_grid
from finetune.fit.encoding import encode
from finetune.fit.linear import LinearVote
from pretrain.backbone.modes import evaluating


@register_method("instances")
class InstanceMaps(CaseMethod):
    """Weights and evidence of tokens or studies."""

    unit = "log odds of an instance, or its weight"

    class Config(Document):
        """Which of what is said of an instance."""

        shows: Literal["evidence", "weight", "share"] = Field(
            "evidence",
            description="evidence of each; its weight in the pooling; or weight times evidence beyond the mean",
        )

    def check(self, member: Member) -> None:
        """The head has to score instances; weights are of poolings that have them."""
        readout = instance_readout(member)
        if self.config.shows == "evidence":
            return
        head = readout.head
        pooling = getattr(head.config, "pooling", "mean")
        if pooling not in ("attention", "mean"):
            raise ConfigError(
                f"method instances: pooling {pooling} has no weights; show evidence, or fit with pooling attention"
            )

    def amount(self, values: np.ndarray) -> float | None:
        """The most that one says, or what their shares add up to; None of weights."""
        if self.config.shows == "weight":
            return None
        size = np.abs(values)
        return float(size.max() if self.config.shows == "evidence" else size.sum())

    def maps(self, question: Question) -> list[CellMap]:
        """A map of each image of the case; of studies, each image of one value."""
        member = question.member
        readout = instance_readout(member)
        head, backbone = readout.head, member.backbone
        with evaluating(backbone), torch.no_grad():
            found = head.instances(encode(backbone, [list(question.studies)], dense=head.needs_tokens))
            assert found is not None, "a head with instance_kind has instances"
            logits_HK = found.scores_BHO[0] if readout.link is None else readout.link(found.scores_BHO[0])
        offset = member.head.offset if isinstance(member.head, LinearVote) else member.offset
        scores_HC = member.target.log_scores(
            logits_HK.double().cpu(), None if offset is None else torch.from_numpy(offset)
        )
        values_H = evidence(member.target, scores_HC, question.place, question.temperature).numpy()
        if self.config.shows != "evidence":
            assert found.weights_BH is not None, "refused by check"
            weights_H = found.weights_BH[0].double().cpu().numpy()
            values_H = weights_H * (values_H - values_H.mean()) if self.config.shows == "share" else weights_H
        return _placed(question, values_H, tokens=found.kind == "token")


def _placed(question: Question, values_H: np.ndarray, *, tokens: bool) -> list[CellMap]:
    """Values of tokens or studies, in the order of features, where these are."""
    backbone, maps, first = question.member.backbone, list[CellMap](), 0
    for number, study in enumerate(question.studies):
        for name, image in study.sorted_images:
            if tokens:
                count = math.prod(token_grid(backbone, image))
                maps.append(of_tokens(backbone, number, name, image, values_H[first : first + count]))
                first += count
            else:
                maps.append(of_whole(number, name, image, float(values_H[number])))
    return maps
