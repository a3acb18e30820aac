"""Maps of cases by a fitted model: which classes are asked for, over members, and back from slices to volumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.support.errors import ConfigError, nearest
from finetune.cases import Cases
from finetune.classifier.predictor import Predictor
from finetune.explain.base import CaseMethod
from finetune.explain.question import Question
from finetune.explain.space import CellMap, averaged, of_volumes
from finetune.images import Study
from finetune.targets import Target

PREDICTED = "predicted"
ALL = "all"


@dataclass(frozen=True)
class CaseMaps:
    """The maps of one case for one class.

    Attributes:
        case: its number among the cases, from 0.
        place: which class, label or number.
        evidence: that is explained, the mean over members.
        maps: of every image of every study.
        studies: of the case, as they were before they were cut into slices.
    """

    case: int
    place: int
    evidence: float
    maps: tuple[CellMap, ...]
    studies: tuple[Study, ...]


def places_of(target: Target, classes: Sequence[str], probabilities_C: np.ndarray) -> list[int]:
    """Which classes, labels or numbers are explained of a case.

    Args:
        target: names them.
        classes: their names; or ``predicted``, which of several labels is the likeliest where none is said to be there,
            and of numbers each; or ``all``.
        probabilities_C: of the case.

    Raises:
        ConfigError: one has no such name; the nearest is given.
    """
    names = list(target.classes)
    if list(classes) == [ALL] and ALL not in names:
        return list(range(len(names)))
    if list(classes) == [PREDICTED] and PREDICTED not in names:
        if not target.classifies:
            return list(range(len(names)))
        decided_L = target.decide(probabilities_C[None])[0]
        if len(decided_L) == 1:
            return [int(decided_L[0])]
        return np.flatnonzero(decided_L).tolist() or [int(np.argmax(probabilities_C))]
    for name in classes:
        if name in (PREDICTED, ALL) and name not in names:
            raise ConfigError(f"classes: {name!r} stands alone; or name classes: {', '.join(names)}")
        if name not in names:
            raise ConfigError(f"unknown class {name!r}{nearest(name, [*names, PREDICTED, ALL])}")
    return [names.index(name) for name in dict.fromkeys(classes)]


def maps_of(
    predictor: Predictor, method: CaseMethod, cases: Cases, case: int, places: Sequence[int], view: Cases | None = None
) -> Iterator[CaseMaps]:
    """The maps of one case.

    Args:
        predictor: what is explained: the mean over its members, without draws of dropout.
        method: how.
        cases: among which it is.
        case: its number.
        places: for which classes, labels or numbers.
        view: the cases as the networks see them, where there is one already.

    Raises:
        DataError: an image cannot be read, or does not fit.
    """
    view = predictor.shown(cases) if view is None else view
    whole = predictor.seen.fitting(cases)
    studies, before = view.studies_of(case), tuple(whole.studies_of(case))
    for place in places:
        questions = [Question(member, studies, place, predictor.temperature) for member in predictor.members]
        maps = averaged([method.maps(question) for question in questions])
        if predictor.slices is not None:
            axis = predictor.slices.axis
            lengths = [next(iter(study.images.values())).pixels.shape[1 + axis] for study in before]
            maps = of_volumes(maps, predictor.slices, lengths)
        evidence = float(np.mean([question.value for question in questions]))
        yield CaseMaps(case, place, evidence, tuple(maps), before)


def check_method(predictor: Predictor, method: CaseMethod) -> None:
    """Refuse a classifier that the method cannot explain.

    Raises:
        ConfigError: says what it is for.
    """
    for member in predictor.members:
        method.check(member)
