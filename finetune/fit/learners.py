"""The two things that are trained: a head on cached features, and a backbone with a head on images."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.fit.encoding import Inputs, encode, parts_of, ranged, spacing_of, stacked
from finetune.fit.network import Network, Readout
from finetune.fit.room import studies_at_once
from finetune.heads import CaseFeatures
from finetune.images import Study
from finetune.objective import Objective
from finetune.strategies import Rates, Stage, Strategy
from pretrain.backbone.study import Features
from pretrain.metadata import Metadata
from pretrain.spacing import as_spacing, on_device
from pretrain.views import Pipeline, ViewConfig
from pretrain.views.random import sample_keys

LIGHT = ViewConfig.model_validate(
    {
        "crop": {"scale": (0.7, 1.0), "aspect": 1.1},
        "rotation": {"degrees": 10.0},
        "flip": None,
        "brightness": {"probability": 0.5, "strength": 0.1},
        "contrast": {"probability": 0.5, "strength": 0.2},
        "gamma": {"probability": 0.5, "strength": 0.1},
        "colour": {"probability": 0.5, "strength": 0.05},
        "blur": None,
        "noise": None,
    }
)
"""Weaker than in pretraining, for a label must survive it; nothing is mirrored: a label can be about the side."""
_LIGHTLY = Pipeline(LIGHT)


class CachedLearner:
    """A head on features that were computed once.

    Args:
        readout: what is trained.
        features: of all given cases.
        rates: peak learning rates.
    """

    def __init__(self, readout: Readout, features: CaseFeatures, rates: Rates) -> None:
        self.module: nn.Module = readout
        self.readout = readout
        self._stages = [Stage("head", readout.groups(rates.head, rates.weight_decay))]
        self._features = features

    def stages(self) -> Sequence[Stage]:
        """The head."""
        return self._stages

    @property
    def at_once(self) -> int:
        """All: features are small, and here already."""
        return len(self._features)

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the cases at ``rows``; cached features are never augmented."""
        logits_BK: Tensor = self.module(self._features.take(torch.from_numpy(rows)))
        return logits_BK

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """The loss of each case with what the head adds, ``(B,)``."""
        del step
        return self.readout.losses(self._features.take(torch.from_numpy(rows)), objective, rows)

    def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[Tensor, np.ndarray]:
        """Mixtures of the features of each case and the next one (manifold mixup, Verma et al., ICML 2019).

        Raises:
            ConfigError: cases differ in their number of tokens or studies, or the head adds terms to the loss.
        """
        _check_unpenalised(self.readout)
        if self._features.weight_BT is not None or self._features.studies_BSD is not None:
            raise ConfigError("mixup mixes cases that have one image each, all of one size")
        others = np.roll(rows, 1)
        first, second = (self._features.take(torch.from_numpy(each)) for each in (rows, others))
        tokens = None
        if first.tokens_BTD is not None and second.tokens_BTD is not None:
            tokens = share * first.tokens_BTD + (1 - share) * second.tokens_BTD
        embedding = share * first.embedding_BD + (1 - share) * second.embedding_BD
        logits_BK: Tensor = self.module(replace(first, embedding_BD=embedding, tokens_BTD=tokens))
        return logits_BK, others


class ImageLearner:
    """A whole network on images, lightly augmented.

    Args:
        network: what is trained; the strategy has prepared its backbone.
        cases: whose images it sees.
        strategy: what moves.
        rates: peak learning rates.
        augmented: whether training steps see augmented images. One counts as having the spacing of what it was made of.
        seed: fixes the augmentation.
    """

    def __init__(
        self, network: Network, cases: Cases, strategy: Strategy, rates: Rates, *, augmented: bool, seed: int
    ) -> None:
        self.module: nn.Module = network
        self._network, self._cases = network, cases
        self.readout = network.readout
        head = network.readout.groups(rates.head, rates.weight_decay)
        self._stages = strategy.stages(network.backbone, head, rates)
        self._augmented, self._seed = augmented, seed

    def stages(self) -> Sequence[Stage]:
        """As the strategy says."""
        return self._stages

    @functools.cached_property
    def at_once(self) -> int:
        """How many cases memory has room for in a training step, if they are like the largest of the first few.

        Raises:
            DataError: there is no room for one.
        """
        first = (self._cases.studies_of(case) for case in range(min(len(self._cases), _LOOKED_AT)))
        most, largest = max(
            ((len(studies), max(studies, key=_voxels)) for studies in first),
            key=lambda pair: pair[0] * _voxels(pair[1]),
        )
        backbone, dense = self._network.backbone, self._network.readout.head.needs_tokens
        return studies_at_once(backbone, largest, dense=dense, train=True, together=most) // most

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the cases at ``rows``; the augmentation depends on the case, the step and the seed alone."""
        size = self.at_once
        if step is None and len(rows) > size:
            parts = [self._logits(rows[start : start + size], step, None) for start in range(0, len(rows), size)]
            return torch.cat(parts)
        return self._logits(rows, step, None)

    def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[Tensor, np.ndarray]:
        """Mixtures of the augmented images of each case and the next one of its shape (Zhang et al., ICLR 2018, eq. 1).

        Raises:
            ConfigError: a case has several studies, or the head adds terms to the loss.
        """
        _check_unpenalised(self._network.readout)
        if self._cases.bagged:
            raise ConfigError("mixup mixes cases that have one study each")
        others = rows.copy()
        for part in parts_of(self._network.backbone, [case[0] for case in self._studies(rows)]):
            others[part.places] = np.roll(rows[part.places], 1)
        return self._logits(rows, step, share), others

    def dense(self, rows: np.ndarray, step: int) -> Iterator[tuple[Features, Tensor, int]]:
        """Features with tokens of augmented images of one shape, these images, and the stride of the tokens.

        Every image of every study by itself, shape by shape; augmented as :meth:`logits` does it.
        """
        backbone = self._network.backbone
        cases = self._studies(rows)
        studies = [study for case in cases for study in case]
        sizes = [len(case) for case in cases]
        numbers = np.concatenate([row * _MOST_STUDIES + np.arange(size) for row, size in zip(rows, sizes, strict=True)])
        device = next(backbone.parameters()).device
        for part in parts_of(backbone, studies):
            for name, _ in part.studies[0].sorted_images:
                each = [study.images[name] for study in part.studies]
                spacing_BA = spacing_of(each)
                images = stacked(part.studies, name, device)
                made = self._inputs(step)(images, numbers[part.places], spacing_BA)
                organ = torch.tensor([int(study.organ) for study in part.studies], device=device)
                modality = torch.tensor([int(image.modality) for image in each], device=device)
                metadata = Metadata(organ, modality, torch.full_like(organ, int(Task.self_supervised)))
                spacing = on_device(as_spacing(spacing_BA), device)
                yield backbone.features(made, metadata, spacing, dense=True), made, int(backbone.stride)

    def _inputs(self, step: int | None) -> Inputs:
        """What makes the network's input of images as they are stacked."""

        def inputs(images: Tensor, numbers_B: np.ndarray, spacing_BA: Tensor | None) -> Tensor:
            if step is None or not self._augmented:
                return ranged(images)
            samples_B = torch.from_numpy(numbers_B).to(images.device)
            if spacing_BA is not None:
                spacing_BA = spacing_BA.to(images.device)
            return _LIGHTLY(images, sample_keys(self._seed, step, 0, samples_B, 0), spacing_BA)

        return inputs

    def _studies(self, rows: Sequence[int] | np.ndarray) -> list[list[Study]]:
        return [self._cases.studies_of(int(case)) for case in rows]

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """The loss of each augmented case with what the head adds, ``(B,)``."""
        return self._network.readout.losses(self._features(rows, step, None), objective, rows)

    def _logits(self, rows: np.ndarray, step: int | None, share: float | None) -> Tensor:
        logits_BK: Tensor = self._network.readout(self._features(rows, step, share))
        return logits_BK

    def _features(self, rows: np.ndarray, step: int | None, share: float | None) -> CaseFeatures:
        network = self._network
        cases = self._studies(rows)
        # A study has its own number in whatever batch it is.
        pairs = zip(rows, cases, strict=True)
        numbers = np.concatenate([case * _MOST_STUDIES + np.arange(len(mine)) for case, mine in pairs])

        def inputs(images: Tensor, numbers_B: np.ndarray, spacing_BA: Tensor | None) -> Tensor:
            made = self._inputs(step)(images, numbers_B, spacing_BA)
            return made if share is None else share * made + (1 - share) * made.roll(1, 0)

        dense = network.readout.head.needs_tokens
        return encode(network.backbone, cases, dense=dense, numbers=numbers, inputs=inputs)


def _check_unpenalised(readout: Readout) -> None:
    if readout.head.penalises:
        raise ConfigError(
            f"head {readout.head.name}: what its options add to the loss is of cases that are not mixed, and mixup and "
            "stepper mixmatch mix them; leave one out"
        )


_LOOKED_AT = 16
_MOST_STUDIES = 1 << 20
"""Numbers of studies set aside for each case."""


def _voxels(study: Study) -> int:
    return sum(image.pixels.size for image in study.images.values())
