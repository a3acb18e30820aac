"""The studies of a folder: every file that is an image, with the files of a DICOM series joined."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from data_shards.sample import SPLITS
from data_shards.sources.base import Skipped
from data_shards.sources.images.dicom import Header, Unusable, find_series
from data_shards.sources.images.looking import looks_at
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.study import Found, Place, Study
from data_shards.sources.listing import current_listing
from data_shards.support.errors import DataError

_LATER = "a later time point of its series (times: first)"


@dataclass(frozen=True, slots=True)
class _Levels:
    """What the folders above a file say."""

    split: str | None
    label: tuple[str, ...] | None = field(repr=False)
    subject: str = field(repr=False)


def studies_of_folder(config: ImagesConfig, salt: str) -> Found:
    """List the archive: one study for each image file and each DICOM image, sorted by relative path.

    Args:
        config: the options.
        salt: seals what is kept of the listing.

    Raises:
        DataError: the folder cannot be listed, or the folder levels that the options name are not there.
    """
    files, hidden = list_files(config.root)
    problems = [outside(config.root, path) for path in files]
    inside = [index for index, problem in enumerate(problems) if not problem]
    paths = [config.root / files[index] for index in inside]
    looks = dict(zip(inside, looks_at(paths, current_listing(), config.name, salt), strict=True))
    skipped = {index: Skipped("", problem) for index, problem in enumerate(problems) if problem}
    studies: dict[str, Study] = {}
    for index, look in looks.items():
        path = files[index]
        name = _name(index, path, config)
        if look.kind is None:
            skipped[index] = Skipped("", look.reason, lost=look.lost)
        elif look.kind != "dicom":
            levels = _levels(path, name, config)
            subject = levels.subject or own_subject(config.name, path)
            studies[path] = Study(path, {"image": Place(name, path, look.kind)}, subject, levels.split, levels.label)
    dicom = {index: look.header for index, look in looks.items() if look.header is not None}
    if dicom:
        skipped |= _add_series(files, dicom, config, studies)
    found = Found([studies[path] for path in sorted(studies)])
    found.label_names = ("folder",) if config.label == "folder" else ()
    found.skipped = [replace(entry, item=_name(at, files[at], config)) for at, entry in sorted(skipped.items())]
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
    files: Sequence[str], headers: Mapping[int, Header | Unusable], config: ImagesConfig, studies: dict[str, Study]
) -> dict[int, Skipped]:
    """Add one study for each DICOM image to ``studies``; returns why files are in none, by their index."""
    indices = list(headers)
    index_of = {config.root / files[index]: index for index in indices}
    usable = [isinstance(header, Header) for header in headers.values()]
    scopes = [
        _levels(files[at], _name(at, files[at], config), config) if is_usable else None
        for at, is_usable in zip(indices, usable, strict=True)
    ]
    all_series, unused = find_series(list(index_of), headers=list(headers.values()), scopes=scopes)
    skipped = {indices[at]: Skipped("", reason, lost=damaged) for at, reason, damaged in unused}
    several = 0
    for members, series in sorted(
        ((sorted({index_of[path] for path in series.paths}), series) for series in all_series),
        key=lambda pair: (pair[0], pair[1].frames),
    ):
        first = files[members[0]]
        name = _name(members[0], first, config)
        if len(members) > 1:
            several += 1
            name = f"{first} and {len(members) - 1} more files" if config.show_paths else f"series {several}"
        elif series.frames:
            name += (
                f", frame {series.frames[0] + 1}" if len(series.frames) == 1 else f", from frame {series.frames[0] + 1}"
            )
        seen = {_levels(files[index], name, config) for index in members}
        if len(seen) > 1:
            raise DataError(f"{name}: its files are in folders that mean different splits, classes or subjects")
        if config.times == "first" and not series.first:
            skipped |= {at: Skipped("", _LATER) for at in members if not series.frames}
            continue
        levels = seen.pop()
        patient = series.patient.strip() if config.subject == "auto" else ""
        subject = levels.subject or patient or own_subject(config.name, first)
        place = Place(name, first, "dicom", series=series)
        # Several images can be in one file and then share its path; the number of their first frame tells them apart.
        frame = min(series.frames, default=0)
        identifier = f"{first}#{frame}" if frame else first
        studies[identifier] = Study(
            identifier, {"image": place}, subject, levels.split, levels.label, attributes=ages_of(place)
        )
    return skipped


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
