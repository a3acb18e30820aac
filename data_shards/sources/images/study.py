"""A study as the listing of an archive finds it: where its images lie, and what is known before they are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.sources.base import Skipped
from data_shards.sources.images.kinds import Kind
from data_shards.sources.images.nifti import frame_count
from data_shards.sources.images.picture import Pages, picture_frames
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from data_shards.sources.images.dicom import Series


@dataclass(frozen=True, slots=True)
class Place:
    """Where one image is read from.

    Attributes:
        name: how messages call it.
        path: relative to the root of the archive; of the first file of a series.
        kind: what reads it; None when nothing does.
        problem: why nothing reads it.
        series: the files of a DICOM image.
        frame: which volume of a NIfTI file, or which picture of several.
        modality: what the table says of it, by name; empty when it says nothing.
    """

    name: str
    path: str = field(repr=False)
    kind: Kind | None
    problem: str = ""
    series: Series | None = None
    frame: int = 0
    modality: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """One sample to be.

    Attributes:
        identifier: unique in the archive and the same in every listing; its hash is the key.
        images: places by image name.
        subject: the raw identifier of the subject; never leaves the process that hashes it.
        split: train, val, test, or None where a rule decides.
        label: cells of the label columns, or the name of the class folder; None without label.
        organ: by name; empty when only the dataset says it.
        attributes: further numbers by name.
        bag: studies of one bag are one case for whoever classifies; empty when nothing is said.
        groups: cells of the columns that scores are grouped by, by name.
    """

    identifier: str = field(repr=False)
    images: dict[str, Place]
    subject: str = field(repr=False)
    split: str | None = None
    label: tuple[str, ...] | None = field(default=None, repr=False)
    organ: str = ""
    attributes: dict[str, float] = field(default_factory=dict)
    bag: str = field(default="", repr=False)
    groups: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """How messages call it: by its first image."""
        return next(iter(self.images.values())).name


@dataclass
class Found:
    """What a listing found; see :class:`~data_shards.sources.base.Source` for ``skipped`` and ``warnings``.

    ``decimal_comma``: see :class:`~data_shards.sources.tables.roles.Table`.
    """

    studies: list[Study] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    label_names: tuple[str, ...] = ()
    decimal_comma: bool = False


def check_splits(studies: Iterable[Study]) -> None:
    """Refuse a subject in two of the splits that a table or folders give, before any pixel is read.

    Raises:
        DataError: names an image of the subject in each, and not the subject.
    """
    homes: dict[str, Study] = {}
    for study in studies:
        home = homes.setdefault(study.subject, study)
        if home.split != study.split:
            given = [f"{each.name} in split {each.split or 'none'}" for each in (home, study)]
            raise DataError(f"{' and '.join(given)} are of one subject; a subject is in one split")


def with_frames(studies: Iterable[Study], root: Path, pages: Pages) -> list[Study]:
    """One study for each volume or picture of the files that hold several; they share the subject and all else.

    Raises:
        DataError: a study of several images has a file with several of them.
    """
    result = []
    for study in studies:
        counts = {name: _frames(root, place, pages) for name, place in study.images.items()}
        if max(counts.values()) > 1 and len(counts) > 1:
            raise DataError(f"{study.name}: frames: all is for studies of one image, this one has {len(counts)}")
        result.append(study)
        for frame in range(1, max(counts.values())):
            images = {
                name: replace(place, frame=frame, name=f"{place.name}, frame {frame + 1}")
                for name, place in study.images.items()
            }
            result.append(replace(study, identifier=f"{study.identifier}#{frame}", images=images))
    return result


def _frames(root: Path, place: Place, pages: Pages) -> int:
    try:
        if place.kind == "picture":
            return picture_frames(root / place.path, pages)
        return frame_count(root / place.path) if place.kind == "nifti" else 1
    except DataError:
        return 1  # reading it says what is wrong
