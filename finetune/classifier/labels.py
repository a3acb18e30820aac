"""Labels as they are given, to labels of a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task, word
from finetune.targets import Target, create_target


def encode_classes(y: Any, task: str | None) -> tuple[np.ndarray, np.ndarray, Target]:
    """The classes, the labels as ``(N, L)`` class indices, and the target.

    Args:
        y: ``(N,)`` labels of any type that can be sorted, or ``(N, L)`` 0/1 of several labels.
        task: name of the target; None for binary, multiclass or multilabel by what is there.

    Raises:
        DataError: labels are missing, cannot be sorted, are all the same, or do not fit the target.
    """
    targets = np.asarray(y)
    if targets.ndim == 2 and targets.shape[1] == 1 and task != Task.multilabel.name:
        targets = targets[:, 0]
    if targets.ndim not in (1, 2) or not targets.size:
        raise DataError(f"y: expected labels (N,) or (N, L), found shape {targets.shape}")
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise DataError("y: a label is NaN or infinite")
    if targets.ndim == 2:
        if not np.isin(targets, (0, 1)).all() or task not in (None, Task.multilabel.name):
            raise DataError(f"y: labels of shape {targets.shape} must be 0 or 1, of a multilabel task")
        classes = np.arange(targets.shape[1])
        return classes, targets.astype(np.int64), create_target(Task.multilabel.name, classes.astype(str).tolist())
    classes, indices = distinct(y, "y")  # as given: an array of strings has "nan" where one is missing
    if len(classes) < 2:
        raise DataError(f"y: every label is {classes[0]!r}; expected at least two classes")
    kind = word(Task, task) if task is not None else Task.binary if len(classes) == 2 else Task.multiclass
    if kind in (Task.multilabel, Task.regression):
        raise DataError(f"y: labels of shape {targets.shape} do not fit a {kind.name} task of a classifier")
    try:
        target = create_target(kind.name, [str(name) for name in classes])
    except DataError as error:
        raise DataError(f"y: {error}") from None
    return classes, indices[:, None].astype(np.int64), target


def encode_numbers(y: Any) -> tuple[np.ndarray, Target]:
    """The labels as float64 ``(N, L)``, and the target.

    Raises:
        DataError: they are not finite numbers.
    """
    try:
        labels = np.asarray(y, np.float64)
    except (TypeError, ValueError):
        raise DataError("y: expected numbers") from None
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or not labels.size:
        raise DataError(f"y: expected numbers (N,) or (N, L), found shape {labels.shape}")
    if not np.isfinite(labels).all():
        raise DataError("y: a label is NaN or infinite")
    names = ["number"] if labels.shape[1] == 1 else [f"number {place}" for place in range(labels.shape[1])]
    return labels, create_target(Task.regression.name, names)


def distinct(values: Sequence[Any] | np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The different values, sorted, and which of them each is, ``(N,)``.

    Raises:
        DataError: one is missing (None, NaN and the like), they are not one for each case, or cannot be sorted.
    """
    for position, value in enumerate(np.asarray(values, dtype=object).reshape(-1).tolist()):
        if _is_missing(value):
            raise DataError(f"{name}: the one of image {position} is missing; expected one for each image")
    flat = np.asarray(values)
    if flat.ndim not in (1, 2) or flat.size != len(flat):
        raise DataError(f"{name}: expected one for each image, found shape {flat.shape}")
    try:
        different, index_N = np.unique(flat.reshape(-1), return_inverse=True)
    except TypeError:
        raise DataError(f"{name}: values of several types, which cannot be sorted; expected one type") from None
    return different, index_N


def _is_missing(value: object) -> bool:
    """Whether a value stands for none: None, or, as NaN, NaT and ``pandas.NA``, not surely equal to itself."""
    try:
        return value is None or not bool(value == value)
    except TypeError:
        return True
