"""The linear head on frozen features: the penalised optimum, its penalty and what it reads chosen by cross-validation.

A candidate is one read of the backbone, or a vote: the mean of the probabilities of several, each with the penalty that
is best for it. The tangent space of covariances votes for texture, and raw pixels for what a network has thrown away of
small images; each is left out where cases do not have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from finetune.fit.tangent import TangentSpace
from finetune.progress import progress
from finetune.splits import Folds
from finetune.targets import Affine, Target
from finetune.targets.logistic import finite

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))
"""Candidates for the inverse penalty, on standardised features."""

DEFAULT_STRENGTH = 1e-2
"""Used where no label can be held out to choose one."""

RAW = "raw"
"""The read that is raw pixels."""

TANGENT = "tangent"
"""The read that is the tangent space of covariances, see :mod:`finetune.fit.tangent`."""

CHANNELS = 32
"""To so many are the channels of covariances reduced."""

VOTE = ("embedding", "mean_spread", TANGENT, RAW)
"""The reads that vote."""


@dataclass(frozen=True)
class Standardiser:
    """Zero mean and unit variance per feature, as the training cases have them; constant features are only centred."""

    mean_D: np.ndarray
    scale_D: np.ndarray

    @classmethod
    def of(cls, features_ND: np.ndarray) -> Standardiser:
        """The standardiser of these features.

        Raises:
            DataError: the features are not finite.
        """
        scaler = StandardScaler().fit(finite(features_ND))
        return cls(scaler.mean_, scaler.scale_)

    def __call__(self, features_ND: np.ndarray) -> np.ndarray:
        """Standardise, in float64."""
        standard_ND: np.ndarray = (features_ND - self.mean_D) / self.scale_D
        return standard_ND

    def arrays(self) -> dict[str, np.ndarray]:
        """All there is to it, by name."""
        return {"mean": self.mean_D, "scale": self.scale_D}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], width: int) -> Standardiser:
        """Read back what :meth:`arrays` gave.

        Args:
            arrays: by name.
            width: of the features.

        Raises:
            KeyError: one is missing.
            ValueError: one has another shape, or a value that no fit gives.
        """
        mean_D, scale_D = arrays["mean"], arrays["scale"]
        if not mean_D.shape == scale_D.shape == (width,):
            raise ValueError(f"mean and scale of {mean_D.shape} and {scale_D.shape} for features of {width}")
        if not np.isfinite(mean_D).all() or not np.isfinite(scale_D).all() or not (scale_D > 0).all():
            raise ValueError("mean and scale: expected finite numbers, scales above 0")
        return cls(mean_D, scale_D)

    @property
    def width(self) -> int:
        """Of what it gives."""
        return len(self.mean_D)


Scaling = Standardiser | TangentSpace
"""What features of one read go through before the linear model, fitted to training cases."""


def scaling_of(read: str, features_ND: np.ndarray, channels: int = CHANNELS) -> Scaling:
    """The scaling of a read.

    Raises:
        DataError: the features are not finite, or there is nothing in them.
    """
    return TangentSpace.of(features_ND, channels) if read == TANGENT else Standardiser.of(features_ND)


@dataclass(frozen=True)
class LinearModel:
    """A scaling and a linear model of one read."""

    reads: str
    scaling: Scaling
    affine: Affine
    strength: float

    def logits(self, features_ND: np.ndarray) -> Tensor:
        """Logits ``(N, K)`` of raw features."""
        return self.affine(self.scaling(features_ND))

    def unstandardised(self) -> Affine:
        """The same model as one of raw features, of which it must be linear."""
        assert isinstance(self.scaling, Standardiser), f"a model that reads {self.reads} is not linear in it"
        weight_KD = self.affine.weight_KD / self.scaling.scale_D
        return Affine(weight_KD, self.affine.bias_K - weight_KD @ self.scaling.mean_D)


@dataclass(frozen=True)
class LinearVote:
    """One linear model or several whose probabilities are averaged.

    Attributes:
        models: themselves.
        target: what they tell.
        offset: see :meth:`finetune.targets.base.Target.offset`.
    """

    models: tuple[LinearModel, ...]
    target: Target
    offset: np.ndarray | None

    @property
    def reads(self) -> tuple[str, ...]:
        """What has to be read of a case."""
        return tuple(model.reads for model in self.models)

    def log_scores(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log scores ``(N, C)`` of features by read."""
        offset = None if self.offset is None else torch.from_numpy(self.offset)
        each = [self.target.log_scores(model.logits(features[model.reads]), offset).numpy() for model in self.models]
        return averaged(self.target, each)


def averaged(target: Target, log_scores: Sequence[np.ndarray]) -> np.ndarray:
    """The log scores of the mean of the probabilities; the mean itself of numbers."""
    if len(log_scores) == 1:
        return log_scores[0]
    mean: np.ndarray = np.mean([target.probabilities(each) for each in log_scores], axis=0)
    return target.log_of(mean)


@dataclass(frozen=True)
class Selected:
    """A fit on all given labels, and what was held out to choose it.

    Attributes:
        fit: the fit.
        reads: the candidate: a read, or ``vote``.
        strengths: the penalty of each read.
        held_out_loss: mean held-out log loss of every candidate, and of every read that votes, at its best penalty;
            empty when nothing was held out.
        held_out: log scores ``(N, C)`` that each case got from a fit without its fold; NaN where it was in none.
    """

    fit: LinearVote
    reads: str
    strengths: dict[str, float]
    held_out_loss: dict[str, float] = field(default_factory=dict)
    held_out: np.ndarray | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """For the record."""
        return {"reads": self.reads, "strength": self.strengths, "held_out_loss": self.held_out_loss}


def select_linear(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    target: Target,
    folds: Folds,
    *,
    balanced: bool,
    candidates: Sequence[str],
    refit: np.ndarray | None = None,
    default: str | None = None,
    strengths: Mapping[str, float] | None = None,
    channels: int = CHANNELS,
) -> Selected:
    """Choose what is read and the penalty on held-out labels, then fit once more on all of them.

    The criterion is the held-out log loss, a proper score: with a handful of held-out cases, accuracy and AUC take only
    a few values and tie.

    Args:
        features: ``(N, D)`` raw features by read.
        labels: ``(N, L)``.
        target: what they are labels of.
        folds: pairs of training and held-out positions.
        balanced: fit with balanced weights, and take them out of the log scores again.
        candidates: reads, and ``vote``.
        refit: positions of the final fit; all of them when left out.
        default: the candidate where nothing can be held out; the first when left out.
        strengths: the inverse penalty of each read there; :data:`DEFAULT_STRENGTH` when left out.
        channels: of covariances, for the tangent space.

    Raises:
        DataError: the features are not finite, or a class has no case to fit to.
    """
    everything = np.arange(len(labels)) if refit is None else refit
    needed = dict.fromkeys(read for candidate in candidates for read in reads_of(candidate, features))

    def fits(read: str, rows: np.ndarray, strengths: Sequence[float]) -> list[LinearModel]:
        scaling = scaling_of(read, features[read][rows], channels)
        weights = target.weights(labels[rows]) if balanced else None
        rough = len(strengths) > 1  # what is chosen is fitted again
        path = target.linear_path(scaling(features[read][rows]), labels[rows], strengths, weights, rough=rough)
        pairs = zip(path, strengths, strict=True)
        return [LinearModel(read, scaling, affine, strength) for affine, strength in pairs]

    def log_scores(models: list[LinearModel], rows: np.ndarray, train: np.ndarray) -> list[np.ndarray]:
        """Of models that have one scaling, which is computed once."""
        offset = target.offset(labels[train]) if balanced else None
        shift = None if offset is None else torch.from_numpy(offset)
        scaled = models[0].scaling(features[models[0].reads][rows])
        return [target.log_scores(model.affine(scaled), shift).numpy() for model in models]

    def loss(scores_MC: np.ndarray, rows: np.ndarray) -> float:
        return float(target.log_loss(torch.from_numpy(scores_MC), labels[rows]).mean())

    best: dict[str, float] = {**dict.fromkeys(needed, DEFAULT_STRENGTH), **(strengths or {})}
    held_out_loss: dict[str, float] = {}
    chosen = default or candidates[0]
    held_out: np.ndarray | None = None
    if folds:
        said: dict[str, list[np.ndarray]] = {}
        paths_of: dict[str, list[list[np.ndarray]]] = {read: [] for read in needed}
        with progress(len(needed) * len(folds), "paths", "choosing the penalty") as shown:
            for read, (train, held) in itertools.product(needed, folds):
                paths_of[read].append(log_scores(fits(read, train, STRENGTHS), held, train))
                shown.advance(1)
        for read, paths in paths_of.items():
            losses = np.zeros(len(STRENGTHS))
            for path, (_, held) in zip(paths, folds, strict=True):
                losses += np.array([loss(scores, held) for scores in path]) / len(folds)
            least = int(losses.argmin())
            best[read] = STRENGTHS[least]
            said[read] = [path[least] for path in paths]
        votes: dict[str, list[np.ndarray]] = {}
        for candidate in dict.fromkeys([*candidates, *needed]):
            voters = [said[read] for read in reads_of(candidate, features)]
            votes[candidate] = [averaged(target, each) for each in zip(*voters, strict=True)]
        for candidate, parts in votes.items():
            pairs = zip(parts, folds, strict=True)
            held_out_loss[candidate] = float(np.mean([loss(scores, held) for scores, (_, held) in pairs]))
        chosen = min(candidates, key=held_out_loss.__getitem__)
        held_out = np.full((len(labels), votes[chosen][0].shape[1]), np.nan)
        for scores, (_, held) in zip(votes[chosen], folds, strict=True):
            held_out[held] = scores
    models = tuple(fits(read, everything, [best[read]])[0] for read in reads_of(chosen, features))
    offset_C = target.offset(labels[everything]) if balanced else None
    fit = LinearVote(models, target, offset_C)
    kept = {read: best[read] for read in fit.reads}
    return Selected(fit, chosen, kept, held_out_loss, held_out)


def reads_of(candidate: str, features: Mapping[str, Any]) -> tuple[str, ...]:
    """What a candidate reads; who votes is who is there."""
    return tuple(read for read in VOTE if read in features) if candidate == "vote" else (candidate,)
