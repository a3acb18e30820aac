"""Occlusion: how much less a model speaks for a class where a part of the image is not there.

Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2. A block of voxels takes
the values of a baseline, and the map is the evidence of the whole case less that of the case without the block. It asks
nothing of the model but an answer, so it explains every head, raw pixels included; what is behind the block is a guess,
and two places that say the same cover for each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from pydantic import Field

from data_shards.sample import Image
from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.explain.base import CaseMethod, register_method
from finetune.explain.question import Question
from finetune.explain.removed import Baseline, baseline
from finetune.explain.space import CellMap
from finetune.fit.room import studies_at_once
from finetune.images import Study

_BLOCKS = {2: 8, 3: 6}
"""Of so many blocks is the longest axis of a plane, of a volume, unless their size is given."""


@register_method("occlusion")
class Occlusion(CaseMethod):
    """Blocks replaced by a baseline, one after the other."""

    unit = "log odds that are lost"

    class Config(Document):
        """How large blocks are, how far apart, and what stands in their place."""

        block: int | None = Field(
            None,
            ge=1,
            description="voxels along each axis; an eighth of the longest axis of planes, a sixth of volumes",
        )
        step: int | None = Field(None, ge=1, description="voxels from one block to the next; half a block in planes, "
                                 "a block in volumes")  # fmt: skip
        baseline: Baseline = Field(
            "mean", description="in place of a block: the mean of the image, the image blurred, or the lowest value"
        )

    def amount(self, values: np.ndarray) -> float:
        """The most that one block changes."""
        return float(np.abs(values).max())

    def maps(self, question: Question) -> list[CellMap]:
        """A map of each image of the case."""
        return [
            self._map(question, number, name, image)
            for number, study in enumerate(question.studies)
            for name, image in study.sorted_images
        ]

    def _map(self, question: Question, number: int, name: str, image: Image) -> CellMap:
        shape = image.pixels.shape[1:]
        axes = len(shape)
        block = self.config.block or max(1, math.ceil(max(shape) / _BLOCKS[axes]))
        if block >= max(shape):
            size = "x".join(map(str, shape))
            raise ConfigError(
                f"method occlusion: a block of {block} covers the whole image of {size}; take a smaller one"
            )
        step = self.config.step or (max(1, block // 2) if axes == 2 else block)
        starts = [range(0, max(1, length - block + step), step) for length in shape]
        boxes = [tuple(slice(at, at + block) for at in corner) for corner in product(*starts)]
        instead = baseline(image, self.config.baseline, block)
        values: list[float] = []
        for studies in self._batches(question, number, name, boxes, instead):
            values += (question.value - self._evidence(question, number, studies)).tolist()
        grid = tuple(len(each) for each in starts)
        return CellMap(
            number,
            name,
            shape,
            np.array(values, np.float32).reshape(grid),
            ((block - 1) / 2,) * axes,
            (float(step),) * axes,
        )

    @staticmethod
    def _batches(
        question: Question, number: int, name: str, boxes: Sequence[tuple[slice, ...]], instead: np.ndarray
    ) -> Iterator[list[Study]]:
        """The study with each of the boxes replaced, as many at a time as memory has room for."""
        study = question.studies[number]
        room = studies_at_once(question.member.backbone, study, dense=question.dense)
        for start in range(0, len(boxes), room):
            found = []
            for box in boxes[start : start + room]:
                pixels = study.images[name].pixels.copy()
                pixels[(slice(None), *box)] = instead[(slice(None), *box)]
                found.append(replace(study, images={**study.images, name: replace(study.images[name], pixels=pixels)}))
            yield found

    @staticmethod
    def _evidence(question: Question, number: int, studies: Sequence[Study]) -> np.ndarray:
        """Of the case with each of these in place of one of its studies."""
        before, after = question.features[:number], question.features[number + 1 :]
        cases = [[*before, each, *after] for each in question.encoded(studies)]
        pixels = None
        if (own_BF := question.raw(studies)) is not None:
            assert question.pixels_SF is not None
            pixels = question.pixels_SF.expand(len(studies), -1, -1).clone()
            pixels[:, number] = own_BF
        with torch.no_grad():
            found: np.ndarray = question.evidence(cases, pixels).numpy()
        return found
