"""Integrated gradients: what each place adds to the evidence on the way from the image blurred to the image as it is.

Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017, eq. 1, on the straight path of images
from a baseline to the image. A gradient at the image alone is of little use where the evidence has levelled off or
layers mix places; along the path the parts of all places add up to the evidence of the image less that of the baseline
(completeness, their proposition 1).

The parts are asked of the tokens through which everything goes, those that the latents read (our reading: of a network
of timm those of its last feature map). They go along a curve where the images go along a line, so the integral is that
of ``gradient . d tokens`` along it, by the trapezoidal rule; it is complete on every curve. A token is compared with
what stands at the same place without the finding, so what it says of its position, or of any image, has no part.

Where the head reads raw pixels beside the network, these stay as they are: the part of the network is explained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from pydantic import Field
from torch import Tensor

from data_shards.sample import Image
from data_shards.support.documents import Document
from finetune.classifier.member import Member
from finetune.explain.base import CaseMethod, register_method
from finetune.explain.gradients import read_tokens, require_read_tokens
from finetune.explain.question import Question
from finetune.explain.removed import Baseline, baseline, in_dtype
from finetune.explain.space import CellMap, of_tokens
from finetune.images import Study

_PART = 4
"""Of the longest axis: what is of this size is taken away, unless it is given."""


@register_method("integrated_gradients")
class IntegratedGradients(CaseMethod):
    """Gradients along the way from a baseline to the image."""

    unit = "log odds that are added"

    class Config(Document):
        """From where, and in how many steps."""

        baseline: Baseline = Field(
            "blur", description="where the way begins: the image blurred, its mean, or its lowest value"
        )
        block: int | None = Field(
            None, ge=1, description="voxels: the blur takes away what is of this size; a quarter of the longest axis"
        )
        steps: int = Field(8, ge=1, description="of the way; each is an answer and a gradient")
        positive: bool = Field(False, description="whether only what speaks for the class is shown")

    def check(self, member: Member) -> None:
        """There have to be tokens."""
        require_read_tokens(member, self.name)

    def amount(self, values: np.ndarray) -> float:
        """What its parts add up to, whatever their signs."""
        return float(np.abs(values).sum())

    def maps(self, question: Question) -> list[CellMap]:
        """A map of each image of the case."""
        total: dict[tuple[int, str], Tensor] = {}
        way = (replace(question, studies=studies) for studies in self._way(question.studies))
        for before, here in pairwise(read_tokens(each, question.pixels_SF) for each in way):
            for place, now in here.items():
                mean_TD = (before[place].by_tokens_TD + now.by_tokens_TD) / 2
                part_T = (mean_TD * (now.tokens_TD - before[place].tokens_TD)).sum(dim=1)
                total[place] = total[place] + part_T if place in total else part_T
        if self.config.positive:
            total = {place: values_T.clamp(min=0) for place, values_T in total.items()}
        return [
            of_tokens(question.member.backbone, number, name, image, total[number, name].float().cpu().numpy())
            for number, study in enumerate(question.studies)
            for name, image in study.sorted_images
        ]

    def _way(self, studies: Sequence[Study]) -> Iterator[list[Study]]:
        """The studies of the case from the baseline to as they are."""
        starts = [{name: self._start(image) for name, image in study.images.items()} for study in studies]
        for share in np.linspace(0, 1, self.config.steps + 1):
            yield [
                replace(
                    study,
                    images={name: _between(start[name], image, share) for name, image in study.images.items()},
                )
                for study, start in zip(studies, starts, strict=True)
            ]

    def _start(self, image: Image) -> np.ndarray:
        block = self.config.block or max(1, max(image.pixels.shape[1:]) // _PART)
        return baseline(image, self.config.baseline, block)


def _between(start: np.ndarray, image: Image, share: float) -> Image:
    """The image with that share of itself, and the rest of what the way starts with."""
    pixels = (1 - share) * start.astype(np.float64) + share * image.pixels.astype(np.float64)
    return replace(image, pixels=in_dtype(pixels, image.pixels.dtype))
