"""Images without labels beside the labelled ones: which may be used, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.images import JoinedPictures
from finetune.steppers import STEPPERS
from finetune.targets import Target

TASKS = (Task.binary, Task.multiclass)
"""Whose probabilities the steppers that learn from unlabelled images guess."""


def check_unlabelled(stepper: str, *, given: bool, target: Target | None = None) -> None:
    """Refuse unlabelled images that nothing uses, and a stepper without the images that it learns from.

    Args:
        stepper: its name.
        given: whether there are unlabelled images.
        target: what is learned, once it is known.

    Raises:
        ConfigError: says what is missing.
    """
    uses = STEPPERS.named(stepper).learns_unlabelled
    if given and not uses:
        users = [name for name, each in sorted(STEPPERS.items()) if each.learns_unlabelled]
        raise ConfigError(f"unlabelled images are given, and stepper {stepper} uses none; {', '.join(users)} do")
    if uses and not given:
        raise ConfigError(f"stepper {stepper} learns from unlabelled images too, and none are given (unlabelled)")
    if uses and target is not None and target.task not in TASKS:
        raise ConfigError(
            f"stepper {stepper} guesses one class per case: a {target.task.name} target is not for it, expected "
            "binary or multiclass"
        )


def apart(unlabelled: Cases, others: Sequence[Cases]) -> tuple[Cases, int]:
    """The unlabelled cases that are not among others, by their pixels and, where these can be compared, their subjects.

    An unlabelled copy of a case that is held out would make the estimate look better than it is.

    Args:
        unlabelled: read and prepared as the others were.
        others: labelled or held-out cases.

    Returns:
        Those that are left, and how many are not.

    Raises:
        DataError: none is left.
    """
    digests = {digest for cases in others for digest in cases.digests()}
    fresh_N = np.array([digest not in digests for digest in unlabelled.digests()])
    for cases in others:
        if _comparable(cases, unlabelled):
            assert cases.subjects is not None and unlabelled.subjects is not None
            fresh_N &= ~np.isin(unlabelled.subjects, cases.subjects)
    if not fresh_N.any():
        raise DataError(
            f"{unlabelled.name}: each of its {len(unlabelled)} unlabelled cases is labelled or held out, or is of such "
            "a subject; none is left to learn from"
        )
    return (unlabelled if fresh_N.all() else unlabelled[fresh_N]), int((~fresh_N).sum())


def _comparable(first: Cases, second: Cases) -> bool:
    """Whether equal subjects are one: they are hashed names, or both were read at once; numbers are of one reading."""
    if first.subjects is None or second.subjects is None:
        return False
    assert first.rows is not None and second.rows is not None
    named = all(subjects.dtype.kind in "USO" for subjects in (first.subjects, second.subjects))
    return named or first.pictures.home(first.rows)[0] is second.pictures.home(second.rows)[0]


def check_mixable(stepper: str, cases: Cases) -> None:
    """Refuse to mix what has no pixels in common.

    Args:
        stepper: mixes cases.
        cases: labelled and unlabelled ones.

    Raises:
        DataError: a case has several images, or another size.
    """
    if cases.bagged:
        raise DataError(f"stepper {stepper} mixes cases of one study each; some of {cases.name} have several")
    first = cases.studies_of(0)[0]
    for case in range(1, len(cases)):
        study = cases.studies_of(case)[0]
        if study.signature != first.signature:
            raise DataError(
                f"stepper {stepper} mixes images, and {cases.keys[case]} has {_told(study.signature)} where others "
                f"have {_told(first.signature)}; a size brings all to one"
            )


def _told(signature: tuple[tuple[str, tuple[int, ...]], ...]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape[1:]))}" for name, shape in signature)


def together(labelled: Cases, unlabelled: Cases, called: str = "unlabelled") -> Cases:
    """All cases in one row space without labels: the labelled ones come first; keys of the others are ``called`` so."""
    assert labelled.rows is not None and unlabelled.rows is not None
    bags = None
    if labelled.bagged or unlabelled.bagged:
        first, second = (np.arange(len(each)) if each.bags is None else each.bags for each in (labelled, unlabelled))
        bags = np.concatenate([first, len(labelled) + second])
    return replace(
        labelled,
        images=JoinedPictures([labelled.pictures, unlabelled.pictures]),
        labels=None,
        groups={},
        keys=np.concatenate([labelled.keys.astype(str), [f"{called} {key}" for key in unlabelled.keys]]),
        subjects=None,
        spacing_mm=None,
        rows=np.concatenate([labelled.rows, len(labelled.pictures) + unlabelled.rows]),
        bags=bags,
    )
