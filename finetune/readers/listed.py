"""From the studies of a folder or table to cases: which are taken, and their labels, subjects, bags and splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.sources.images.source import Images
from data_shards.sources.tables.privacy import is_date
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.cases import contiguous

_WHOLE = re.compile(r"(\d+)\.0*", re.ASCII)
_FRAME = re.compile(r", (?:from )?frame \d+$")
NAMED = 5
"""So many items are named in a warning."""
MOST_GROUPS = 20
"""A column that has more values than this groups nothing."""
FEW_SUBJECTS = 5
"""Of no more subjects than this each may well be of another site."""


@dataclass(frozen=True)
class Listed:
    """Cases before any pixel is read.

    Attributes:
        source: of the studies.
        positions: in the source, of each study; those of one case follow one another.
        bags: the case of each study; None where each case has one.
        firsts: the place among ``positions`` of the first study of each case.
    """

    source: Images
    positions: tuple[int, ...]
    bags: np.ndarray | None
    firsts: tuple[int, ...]

    @classmethod
    def of(cls, source: Images, positions: Sequence[int]) -> Listed:
        """Group the studies at ``positions`` into cases, by their bags.

        Raises:
            DataError: a bag is empty, or what its studies say of it differs; names two of them.
        """
        groups: dict[object, list[int]] = {}
        some = any(source.bag_of(position) is not None for position in positions)
        for position in positions:
            bag = source.bag_of(position)
            if bag is None and some:
                raise DataError(f"{source.name_of(position)}: the bag is empty")
            groups.setdefault(position if bag is None else bag, []).append(position)
        for members in groups.values():
            _check_agree(source, members)
        flat = tuple(position for members in groups.values() for position in members)
        counts = [len(members) for members in groups.values()]
        bags = np.repeat(np.arange(len(groups)), counts) if len(flat) > len(groups) else None
        return cls(
            source, flat, bags, tuple(int(end - count) for end, count in zip(np.cumsum(counts), counts, strict=True))
        )

    @property
    def names(self) -> list[str]:
        """How messages call each study."""
        return [self.source.name_of(position) for position in self.positions]

    @property
    def case_positions(self) -> list[int]:
        """The position in the source of the first study of each case."""
        return [self.positions[first] for first in self.firsts]

    def keys(self, *, paths: bool) -> np.ndarray:
        """``row 17`` or ``file 17``, or the path of the first image of each case."""
        return np.array([self.key(position, paths=paths) for position in self.case_positions])

    def key(self, position: int, *, paths: bool) -> str:
        """``row 17`` or ``file 17``, or the path of the first image of the study at ``position`` in the source."""
        name = self.source.name_of(position)
        if not paths:
            return name.replace(" of the table", "", 1)
        origin = self.source.origin(position)
        frame = _FRAME.search(name)
        return next(path for role, path in origin.items() if role.startswith("path_")) + (frame[0] if frame else "")

    def subjects(self) -> np.ndarray | None:
        """A number for each subject, which nothing needs to know; None where each case counts as its own."""
        raw = [self.source.subject_of(position) for position in self.case_positions]
        known = any(self.source.knows_subject(position) for position in self.positions)
        if not known and (self.bags is not None or len(set(raw)) == len(raw)):
            return None  # nothing is known of the studies of a bag but that they are of one case
        return np.unique(np.array([_composed(subject) for subject in raw]), return_inverse=True)[1]

    def groups(self) -> dict[str, np.ndarray]:
        """What the cases are grouped by, text by the name of the column.

        Raises:
            DataError: a column has dates; it has so many values that they are rather names or numbers than groups; or
                each value is of one subject and each subject has one value. The message has no value.
        """
        told = [self.source.groups_of(position) for position in self.case_positions]
        found = {name: np.array([each[name] for each in told]) for name in told[0]}
        known = self.subjects()
        subjects = np.arange(len(told)) if known is None else known
        for name, values in found.items():
            if any(is_date(value) for value in np.unique(values).tolist()):
                raise DataError(f"column {name!r} for groups has dates, which tell people apart; group by the year")
            if (count := len(np.unique(values))) > MOST_GROUPS:
                raise DataError(
                    f"column {name!r} has {count} different values in {len(values)} cases; scores are grouped by at "
                    f"most {MOST_GROUPS}, more look like names or measurements"
                )
            pairs = set(zip(values.tolist(), subjects.tolist(), strict=True))
            if len(pairs) == count == len(np.unique(subjects)) and count > FEW_SUBJECTS:
                raise DataError(
                    f"column {name!r} for groups has a value of its own for each of the {count} subjects; "
                    "it names them, and a group of one subject tells nothing"
                )
        return found

    def splits(self) -> list[str | None]:
        """The split of each case that the table or the folders say."""
        return [self.source.split_of(position) for position in self.case_positions]

    def labels(self) -> tuple[np.ndarray, dict[int, str]]:
        """Labels of the cases as :class:`~finetune.cases.Cases` takes them, and the names of what they stand for."""
        vectors = [self.source.label_of(position) for position in self.case_positions]
        labels_NL = np.stack([vector for vector in vectors if vector is not None])
        classes = dict(self.source.card.classes)
        if (task := Task[self.source.card.task]) is Task.regression:
            return labels_NL.astype(np.float64), dict(enumerate(self.source.label_names))
        return (labels_NL, classes) if task is Task.multilabel else contiguous(labels_NL, classes)


def labelled(source: Images) -> tuple[list[int], list[str]]:
    """The positions of the studies with a label, and a warning where there are others.

    Raises:
        DataError: none has one.
    """
    positions = [position for position in range(len(source)) if source.label_of(position) is not None]
    if not positions:
        raise DataError("no row has a label")
    left = sorted(set(range(len(source))) - set(positions))
    if not left:
        return positions, []
    numbers = [source.name_of(position).removeprefix("row ").replace(" of the table", "", 1) for position in left]
    some = ", ".join(numbers[:NAMED]) + ", ..." * (len(left) > NAMED)
    return positions, [f"{len(left)} of {len(source)} rows have no label and are left out: {some}"]


def _check_agree(source: Images, members: Sequence[int]) -> None:
    """Refuse a bag of which two studies say different things.

    Raises:
        DataError: names both.
    """
    first = members[0]
    for other in members[1:]:
        said = {
            "label": _vector(source, first) == _vector(source, other),
            "subject": _subject(source, first) == _subject(source, other),
            "split": source.split_of(first) == source.split_of(other),
            "group": source.groups_of(first) == source.groups_of(other),
        }
        differ = [what for what, same in said.items() if not same]
        if differ:
            raise DataError(
                f"{source.name_of(other)}: another {differ[0]} than {source.name_of(first)}, which is of the same bag"
            )


def _vector(source: Images, position: int) -> list[float] | None:
    vector = source.label_of(position)
    return None if vector is None else vector.tolist()


def _subject(source: Images, position: int) -> str | None:
    return _composed(source.subject_of(position)) if source.knows_subject(position) else None


def _composed(subject: str) -> str:
    """One spelling of a subject.

    ``1`` and ``1.0`` are one, as programs write a column of numbers with a missing one; so are the two ways in which
    Unicode writes an accent.
    """
    composed = unicodedata.normalize("NFC", subject)
    return whole[1] if (whole := _WHOLE.fullmatch(composed)) else composed
