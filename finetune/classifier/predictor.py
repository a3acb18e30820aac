"""What a fitted model says of new cases, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.cases import Cases
from finetune.classifier.abstention import abstains
from finetune.classifier.conformal import Conformal
from finetune.classifier.instances import CaseInstances, averaged, instance_readout, instances_of
from finetune.classifier.member import Member
from finetune.classifier.seen import Seen
from finetune.classifier.uncertainty import deviation, entropy, mutual_information
from finetune.slices import Slices, sliced
from finetune.targets import Target
from finetune.windows import windowed


@dataclass(frozen=True)
class Prediction:
    """What is said of ``N`` cases.

    Attributes:
        probabilities: of classes or labels, ``(N, C)``; the numbers of a regression.
        decided: the label they stand for, ``(N, L)``.
        uncertainty: entropy of the probabilities as a share of the largest possible, ``(N,)``; for numbers the standard
            deviation over members, None with a single one.
        disagreement: what members do not agree about: mutual information as a share of the largest possible, ``(N,)``;
            None with a single member, and for numbers.
        sets: what cannot be excluded at the stated coverage, bool: classes ``(N, C)``, or the values 0 and 1 of each of
            several labels, ``(N, L, 2)``; None where nothing was held out to calibrate on, and for numbers.
        intervals: of numbers, ``(N, L, 2)`` at the stated coverage; None else.
        abstains: where not exactly one class is left, bool ``(N,)``; where any of several labels is open. None where
            there are no sets.
    """

    probabilities: np.ndarray
    decided: np.ndarray
    uncertainty: np.ndarray | None
    disagreement: np.ndarray | None
    sets: np.ndarray | None
    intervals: np.ndarray | None
    abstains: np.ndarray | None


@dataclass(frozen=True)
class Predictor:
    """Fitted models and what is done with what they say.

    Attributes:
        members: one, or those of an ensemble whose probabilities are averaged.
        target: what they tell.
        temperature: log scores are divided by it.
        conformal: sets or intervals of stated coverage; None where nothing was held out.
        seen: what the images were like.
        mc_dropout: draws of dropout that are averaged, too; 0 for none.
        seed: of these.
        slices: volumes are shown as these; None shows images as they are.
        window: in which larger images are read; None reads them whole.
        overlap: of neighbouring windows, as a fraction of their sides.
    """

    members: tuple[Member, ...]
    target: Target
    temperature: float
    conformal: Conformal | None
    seen: Seen
    mc_dropout: int = 0
    seed: int = 0
    slices: Slices | None = None
    window: int | Sequence[int] | None = None
    overlap: float = 0.5

    def each(self, cases: Cases) -> np.ndarray:
        """Probabilities by each member, and each draw of dropout, ``(S, N, C)``.

        Raises:
            DataError: an image cannot be read, or does not fit.
        """
        cases = self.shown(cases)
        said: list[np.ndarray] = []
        for number, member in enumerate(self.members):
            if self.mc_dropout and member.drops:
                said += list(member.samples(cases, self.mc_dropout, self.seed + number))
            else:
                said.append(member.log_scores(cases))
        return np.stack([self.target.probabilities(scores, self.temperature) for scores in said])

    def predict_proba(self, cases: Cases) -> np.ndarray:
        """Probabilities ``(N, C)``; the numbers of a regression."""
        return _mean(self.each(cases))

    def predict(self, cases: Cases) -> Prediction:
        """Everything that is said of the cases."""
        return self.said(self.each(cases))

    def said(self, each_SNC: np.ndarray) -> Prediction:
        """The same from what :meth:`each` gave."""
        probabilities, task = _mean(each_SNC), self.target.task
        several = len(each_SNC) > 1
        if not self.target.classifies:
            unsure = deviation(each_SNC).mean(axis=-1) if several else None
            intervals = None if self.conformal is None else self.conformal.intervals(probabilities)
            decided = self.target.decide(probabilities)
            return Prediction(probabilities, decided, unsure, None, None, intervals, None)
        sets = None if self.conformal is None else self.conformal.sets(probabilities)
        open_N: np.ndarray | None = None
        if sets is not None:
            open_N = abstains(sets, self.target.decide(probabilities))
            open_N = open_N if open_N.ndim == 1 else np.logical_or.reduce(open_N, axis=1)
        return Prediction(
            probabilities,
            self.target.decide(probabilities),
            entropy(probabilities, task, normalised=True),
            mutual_information(each_SNC, task, normalised=True) if several else None,
            sets,
            None,
            open_N,
        )

    def check_instances(self) -> None:
        """Refuse where :meth:`instances` would.

        Raises:
            ConfigError: the head has none.
        """
        for member in self.members:
            instance_readout(member)

    def instances(self, cases: Cases) -> Iterator[CaseInstances]:
        """What is said of the tokens or studies of each case, the mean over members; without draws of dropout.

        Raises:
            ConfigError: the head has none.
            DataError: an image cannot be read, or does not fit.
        """
        self.check_instances()
        cases = self.shown(cases)
        for said in zip(*(instances_of(member, cases, self.temperature) for member in self.members), strict=True):
            yield averaged(said)

    def shown(self, cases: Cases) -> Cases:
        """New cases as the networks see them: as those that were fitted on were shown.

        Raises:
            DataError: an image does not fit what was fitted on.
        """
        return windowed(sliced(self.seen.fitting(cases), self.slices), self.window, self.overlap)


def _mean(each_SNC: np.ndarray) -> np.ndarray:
    mean: np.ndarray = each_SNC[0] if len(each_SNC) == 1 else each_SNC.mean(axis=0)
    return mean
