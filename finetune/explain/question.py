"""One question: why does a fitted model say so much for a class of a case?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from data_shards.support.errors import ConfigError
from finetune.classifier.member import Member
from finetune.explain.evidence import evidence, log_scores
from finetune.fit.encoding import StudyFeatures, encode_studies, together
from finetune.fit.linear import RAW, LinearVote
from finetune.fit.raw import flat_pixels
from finetune.images import Study
from pretrain.backbone import Medformer
from pretrain.backbone.modes import evaluating


def reads(member: Member) -> tuple[str, ...]:
    """What a vote of linear models reads; empty for other heads."""
    return member.head.reads if isinstance(member.head, LinearVote) else ()


def reads_tokens(member: Member) -> bool:
    """Whether the head reads dense tokens."""
    if isinstance(member.head, LinearVote):
        return any(read not in (RAW, "embedding") for read in member.head.reads)
    return member.head.head.needs_tokens


def require_network(member: Member, method: str) -> None:
    """Refuse a head that does not ask the network.

    Raises:
        ConfigError: it reads raw pixels alone.
    """
    if reads(member) == (RAW,):
        raise ConfigError(
            f"method {method}: head linear reads raw pixels alone, the network has no part in it; try occlusion"
        )


def perceiver_of(member: Member, method: str) -> Medformer:
    """The network, whose latents read tokens.

    Raises:
        ConfigError: it is one of others, which has none.
    """
    if isinstance(member.backbone, Medformer):
        return member.backbone
    name = getattr(member.backbone, "architecture", type(member.backbone).__name__)
    raise ConfigError(
        f"method {method} asks the tokens that the latents of a Medformer read, and {name} has none; use occlusion "
        "or grad_cam"
    )


@dataclass(frozen=True)
class Question:
    """Why a model says so much for a class of a case.

    Attributes:
        member: the model.
        studies: of the case, as they are shown to the network.
        place: which class, label or number.
        temperature: of the predictor.
    """

    member: Member
    studies: Sequence[Study]
    place: int
    temperature: float = 1.0

    @property
    def dense(self) -> bool:
        """Whether the head reads dense tokens."""
        return reads_tokens(self.member)

    @cached_property
    def features(self) -> list[StudyFeatures]:
        """What the network makes of each study, without gradient; empty where only raw pixels are read."""
        return self.encoded(self.studies)

    def encoded(self, studies: Sequence[Study]) -> list[StudyFeatures]:
        """What the network makes of studies, without gradient, no more at a time than memory has room for.

        Raises:
            DataError: an image is too large for the memory that is there.
        """
        if reads(self.member) == (RAW,):
            return []
        with evaluating(self.member.backbone), torch.no_grad():
            return encode_studies(self.member.backbone, studies, self.dense)

    @cached_property
    def pixels_SF(self) -> Tensor | None:
        """The raw pixels of each study, where they are read."""
        return self.raw(self.studies)

    def raw(self, studies: Sequence[Study]) -> Tensor | None:
        """The raw pixels of studies, one row each; None where they are not read."""
        sides = self.member.sides
        if RAW not in reads(self.member) or sides is None:
            return None
        return torch.stack([torch.from_numpy(flat_pixels(study, sides, "the case")) for study in studies])

    def evidence(self, cases: Sequence[Sequence[StudyFeatures]], pixels_BSF: Tensor | None) -> Tensor:
        """How strongly the model speaks for the class of each case, see :mod:`finetune.explain.evidence`, ``(B,)``.

        Args:
            cases: the features of the studies of each; empty where only raw pixels are read.
            pixels_BSF: raw pixels of these studies, where they are read.
        """
        features = together(cases) if cases else None
        pixels_BF = None if pixels_BSF is None else pixels_BSF.double().mean(dim=1).float()
        scores_BC = log_scores(self.member, features, pixels_BF)
        return evidence(self.member.target, scores_BC, self.place, self.temperature)

    @cached_property
    def value(self) -> float:
        """Of the case as it is."""
        pixels = None if self.pixels_SF is None else self.pixels_SF[None]
        with torch.no_grad():
            return float(self.evidence([self.features] if self.features else [], pixels))
