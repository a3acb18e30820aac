"""The studies of a folder: every file that is an image, with the files of a DICOM series joined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_shards.sample import SPLITS
from data_shards.sources.base import Skipped
from data_shards.sources.images.kinds import kind_of
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.study import Found, Place, Study
from data_shards.support.errors import DataError


@dataclass(frozen=True, slots=True)
class _Levels:
    """What the folders above a file say."""

    split: str | None
    label: tuple[str, ...] | None = field(repr=False)
    subject: str = field(repr=False)


def studies_of_folder(config: ImagesConfig) -> Found:
    """List the archive: one study for each image file and each DICOM series, sorted by relative path.

    Raises:
        DataError: the folder cannot be listed, or the folder levels that the options name are not there.
    """
    files, hidden = list_files(config.root)
    dicom: list[int] = []
    reasons: dict[int, str] = {}
    studies: dict[str, Study] = {}
    for index, path in enumerate(files):
        name = _name(index, path, config)
        problem = outside(config.root, path)
        kind, reason = kind_of(config.root / path) if not problem else (None, problem)
        if kind == "dicom":
            dicom.append(index)
        elif kind is None:
            reasons[index] = reason
        else:
            levels = _levels(path, name, config)
            subject = levels.subject or own_subject(config.name, path)
            studies[path] = Study(path, {"image": Place(name, path, kind)}, subject, levels.split, levels.label)
    if dicom:
        reasons |= _add_series(files, dicom, config, studies)
    found = Found([studies[path] for path in sorted(studies)])
    found.label_names = ("folder",) if config.label == "folder" else ()
    found.skipped = [Skipped(_name(index, files[index], config), reason) for index, reason in sorted(reasons.items())]
    if hidden:
        found.skipped.append(Skipped(f"{hidden} hidden files and folders", "names that start with a dot"))
    if config.split != "folders" and {path.partition("/")[0] for path in studies} >= {"train", "test"}:
        found.warnings.append("folders called train and test are there and not used; split: folders takes them")
    return found


def list_files(root: Path) -> tuple[list[str], int]:
    """Relative paths below ``root`` in the order of their code points, and how many hidden entries were left out.

    Linked folders are not entered.

    Raises:
        DataError: a folder cannot be listed.
    """
    files: list[str] = []
    hidden = 0
    try:
        for folder, folders, names in os.walk(root, onerror=_raise):
            hidden += sum(name.startswith(".") for name in (*folders, *names))
            folders[:] = [name for name in folders if not name.startswith(".")]
            start = "" if Path(folder) == root else Path(folder).relative_to(root).as_posix() + "/"
            files += [start + name for name in names if not name.startswith(".")]
            files += [start + name for name in folders if os.path.islink(os.path.join(folder, name))]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed: {os.strerror(error.errno or 0)}") from None
    return sorted(files), hidden


def outside(root: Path, path: str) -> str:
    """Why ``path`` is not inside ``root``; empty when it is. Links are followed."""
    try:
        inside = (root / path).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        return "a link that cannot be followed"
    return "" if inside else "a link that leads out of the root"


def ages_of(place: Place) -> dict[str, float]:
    """The attribute ``age_years`` of a DICOM image, where its header has it."""
    if place.series is None or place.series.age_years is None:
        return {}
    return {"age_years": place.series.age_years}


def own_subject(name: str, path: str) -> str:
    """The identifier of a subject of whom nothing is known but one file."""
    return f"file {name}/{path}"


def _add_series(
    files: Sequence[str], dicom: Sequence[int], config: ImagesConfig, studies: dict[str, Study]
) -> dict[int, str]:
    """Add one study for each DICOM series to ``studies``; returns why files are in none, by their index."""
    from data_shards.sources.images.dicom import find_series

    index_of = {config.root / files[index]: index for index in dicom}
    all_series, unusable = find_series(list(index_of))
    several = 0
    for indices, series in sorted(
        ((sorted({index_of[path] for path in series.paths}), series) for series in all_series), key=lambda pair: pair[0]
    ):
        first = files[indices[0]]
        name = _name(indices[0], first, config)
        if len(indices) > 1:
            several += 1
            name = f"{first} and {len(indices) - 1} more files" if config.show_paths else f"series {several}"
        seen = {_levels(files[index], name, config) for index in indices}
        if len(seen) > 1:
            raise DataError(f"{name}: its files are in folders that mean different splits, classes or subjects")
        levels = seen.pop()
        patient = series.patient.strip() if config.subject == "auto" else ""
        subject = levels.subject or patient or own_subject(config.name, first)
        place = Place(name, first, "dicom", series=series)
        # Several images can be in one file and then share its path; the position tells them apart.
        identifier = first if first not in studies else f"{first}#{len(studies)}"
        studies[identifier] = Study(
            identifier, {"image": place}, subject, levels.split, levels.label, attributes=ages_of(place)
        )
    return {dicom[position]: reason for position, reason in unusable}


def _levels(path: str, name: str, config: ImagesConfig) -> _Levels:
    """Read the folders above a file in the order split, class, subject."""
    folders = list(PurePosixPath(path).parts[:-1])

    def level(what: str) -> str:
        if not folders:
            raise DataError(f"{name}: no folder above it says its {what}")
        return folders.pop(0)

    split = level("split") if config.split == "folders" else None
    if split is not None and split not in SPLITS:
        raise DataError(f"{name}: its top folder is none of {', '.join(SPLITS)}")
    label = (level("class"),) if config.label == "folder" else None
    return _Levels(split, label, level("subject") if config.subject == "folder" else "")


def _name(index: int, path: str, config: ImagesConfig) -> str:
    return path if config.show_paths else f"file {index + 1}"


def _raise(error: OSError) -> None:
    raise error
