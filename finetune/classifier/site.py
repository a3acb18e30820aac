"""Images of another site beside the labelled ones: where a classifier shall be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_shards.support.errors import ConfigError, DataError
from finetune.alignment import alignment_config
from finetune.cases import Cases
from finetune.classifier.unlabelled import apart, together

FROZEN_ALIGNED = ("embedding", "mean", "mean_spread", "embedding_mean_spread")
"""Reads of a frozen network whose features are aligned; covariances and pixels are not."""


@dataclass(frozen=True)
class Site:
    """Images of the target site, read and prepared as those of the source site, which has the labels.

    Attributes:
        unlabelled: what is aligned with; labels that they have are not looked at.
        labelled: learned from as the other labelled cases are; and aligned with, too.
    """

    unlabelled: Cases | None = None
    labelled: Cases | None = None

    def __len__(self) -> int:
        return sum(len(cases) for cases in (self.unlabelled, self.labelled) if cases is not None)

    def apart(self, others: Sequence[Cases]) -> tuple[Site, int]:
        """Those that are not among others, see :func:`~finetune.classifier.unlabelled.apart`; and how many are.

        Raises:
            DataError: none of the labelled, or none of the unlabelled ones, is left.
        """
        kept: dict[str, Cases | None] = {"unlabelled": None, "labelled": None}
        lost = 0
        for name, cases in vars(self).items():
            if cases is not None:
                kept[name], count = apart(cases, others)
                lost += count
        return Site(**kept), lost


def check_site(params: Mapping[str, Any], *, given: int, labelled: int) -> None:
    """Refuse images of a target site that nothing uses, and an alignment without them.

    Args:
        params: of the estimator, checked.
        given: how many images of a target site there are.
        labelled: how many of them have labels.

    Raises:
        ConfigError: says what is missing.
    """
    aligned = params["alignment"] is not None
    if aligned and not given:
        name = params["alignment"].get("name")
        raise ConfigError(f"alignment {name} needs images of the target site, and none are given (target_data)")
    if given and not labelled and not aligned:
        raise ConfigError(
            "images of a target site are given, none of them has a label, and without an alignment nothing uses them; "
            "name one, such as coral"
        )


def check_alignment(params: Mapping[str, Any], *, trains_backbone: bool, reads: str) -> None:
    """Refuse an alignment that is unknown, or that the other parameters have no place for.

    Args:
        params: of the estimator.
        trains_backbone: whether its strategy does.
        reads: option of a linear head; empty for another head.

    Raises:
        ConfigError: says which, and what is expected.
    """
    if params["alignment"] is None:
        return
    found, _ = alignment_config(params["alignment"])
    if params["stepper"] != "plain":
        raise ConfigError(f"alignment {found.name} is for stepper plain, and {params['stepper']} draws its own batches")
    if params["mixup"]:
        raise ConfigError(f"alignment {found.name} compares images that are not mixed; leave mixup out")
    if params["batch_size"] < 2:
        raise ConfigError(f"alignment {found.name} compares the images of a batch; batch_size is 2 or more, found 1")
    if trains_backbone:
        return
    strategy = params["strategy"]
    if not found.closed_form:
        raise ConfigError(f"alignment {found.name} moves the backbone, and strategy {strategy} does not; full does")
    if params["head"] != "linear":
        raise ConfigError(
            f"alignment {found.name} of a frozen backbone is for head linear, whose features are one vector per case; "
            f"found {params['head']}"
        )
    if reads not in ("auto", "vote", *FROZEN_ALIGNED):
        raise ConfigError(
            f"alignment {found.name} of a frozen backbone: reads {', '.join(FROZEN_ALIGNED)}, not {reads}"
        )


def joined(source: Cases, target: Cases) -> Cases:
    """Labelled cases of both sites, those of the target site last.

    Subjects are one where both sites name them alike; numbers are of one reading, and those of the sites differ.

    Raises:
        DataError: the classes or the kind of labels differ.
    """
    if target.task is not source.task or dict(target.classes) != dict(source.classes):
        raise DataError(
            f"{target.name}: labels of a {target.task.name} task with {', '.join(target.classes.values())}; the "
            f"source site has a {source.task.name} task with {', '.join(source.classes.values())}"
        )
    return replace(
        together(source, target, "target"),
        labels=np.concatenate([source.known_labels, target.known_labels]),
        subjects=_subjects(source, target),
    )


def _subjects(source: Cases, target: Cases) -> np.ndarray | None:
    if source.subjects is None and target.subjects is None:
        return None
    named = all(each.subjects is not None and each.subjects.dtype.kind in "USO" for each in (source, target))
    found = []
    for where, cases in (("source", source), ("target", target)):
        subjects = np.arange(len(cases)) if cases.subjects is None else cases.subjects
        found += [str(subject) if named else f"{where} {subject}" for subject in subjects]
    return np.array(found)
