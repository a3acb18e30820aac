"""Which files make one image or volume, from their headers; from their pixels only where headers say the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_shards.sources.images.dicom.content import digest_of
from data_shards.sources.images.dicom.geometry import heights, in_mm, places, slice_order
from data_shards.sources.images.dicom.headers import Header, Unusable, read_header
from data_shards.sources.images.dicom.plane import Plane
from data_shards.sources.images.dicom.stacks import Part, by_grid, split_repeats
from data_shards.vocabulary import Modality

_COPY = "the same image as another file of its series"
_CUT_COPY = "a copy of another file that was cut short"


@dataclass(frozen=True)
class Series:
    """The files of one image or volume. Paths and patient are hidden in its text form: both may name a person.

    Attributes:
        paths: files in the order of slices.
        patient: identifier of the patient as the files give it, possibly empty; only to be hashed.
        modality: how the images were made.
        burned_in: whether identifying text is burned into the pixels (0028,0301); None when not all files say.
        age_years: age of the patient, 90 for everybody above 89; None when unknown.
        frames: which frames of a multi-frame file, counted from 0; empty: all.
        oriented: whether the place of the slices in the patient is known, so that the volume is brought to the common
            axes; otherwise its axes are those of the file.
        differs: in what it differs from other images at the same place, by attributes such as ``TriggerTime``; empty
            when there are none.
        first: whether it comes first of these in time.
        numbered: whether only instance numbers say that and how its slices lie beside each other.
    """

    paths: tuple[Path, ...] = field(repr=False)
    patient: str = field(repr=False)
    modality: Modality = Modality.unknown
    burned_in: bool | None = None
    age_years: float | None = None
    frames: tuple[int, ...] = ()
    oriented: bool = False
    differs: tuple[str, ...] = ()
    first: bool = True
    numbered: bool = False


class Unused(NamedTuple):
    """A file that is in no series: its position, why, and whether an image is lost by it."""

    position: int
    reason: str
    damaged: bool


class _File(NamedTuple):
    """A file that can be used, and the scope that the caller gave it."""

    position: int
    path: Path
    header: Header
    scope: Hashable


class _Entry(NamedTuple):
    """One frame of a file."""

    file: _File
    frame: int
    plane: Plane


def find_series(
    paths: Sequence[Path],
    *,
    headers: Sequence[Header | Unusable] | None = None,
    scopes: Sequence[Hashable] | None = None,
) -> tuple[list[Series], list[Unused]]:
    """Group files into images and volumes.

    Files of one series of one patient make a volume when they agree in kind, size, spacing, orientation and frame of
    reference. Slices at one place that differ in echo time, time point, b-value or another trait become separate
    volumes, never one. A multi-frame file is never joined with others.

    Identifiers are not trusted where they repeat. Files are the same when header and decoded pixels are; of these the
    first is used. A file with identifier and header of another whose pixels end early is a copy that was cut short.
    Files that share a SOP Instance UID and are not the same are of different series when they lie in different scopes
    or folders, and so are files at the same place in different scopes.

    Args:
        paths: DICOM files; the order does not change what is found.
        headers: of the files, where they were read already.
        scopes: for each file what is known of where it belongs, such as its subject.

    Returns:
        Series in the order of their first file in ``paths``, and the files that are in none, without anything that a
        file says.
    """
    found = [read_header(path) for path in paths] if headers is None else headers
    unused = [Unused(at, one.reason, one.damaged) for at, one in enumerate(found) if isinstance(one, Unusable)]
    files = [
        _File(position, path, header, None if scopes is None else scopes[position])
        for position, (path, header) in enumerate(zip(paths, found, strict=True))
        if isinstance(header, Header)
    ]
    files = _without_copies(files, unused)
    series: list[tuple[int, int, Series]] = []
    for group in _grouped(files, lambda file: (file.header.group, () if file.header.stackable else file.position)):
        for part in _separated(group):
            _volumes(part, series, unused)
    return [one for *_, one in sorted(series, key=lambda entry: entry[:2])], sorted(unused)


def _grouped(items: Sequence[_File], key: Callable[[_File], Hashable]) -> list[list[_File]]:
    groups: defaultdict[Hashable, list[_File]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _without_copies(files: list[_File], unused: list[Unused]) -> list[_File]:
    """Drop all but one of the files with one identifier, one header and the same pixels.

    Where an identifier stands for images with different headers it is a constant, as de-identification leaves it.
    Equal images are copies then only in one folder: two patients may both have a slice of nothing but air.
    """
    headers: defaultdict[str, set[Hashable]] = defaultdict(set)
    for file in files:
        headers[file.header.instance].add((file.header.group, file.header.planes))

    def identity(file: _File) -> Hashable:
        header = file.header
        if not header.instance:
            return file.position
        folder = file.path.parent if len(headers[header.instance]) > 1 else None
        return header.instance, header.group, header.planes, file.scope, folder

    kept: list[_File] = []
    for alike in _grouped(files, identity):
        if len(alike) == 1:
            kept += alike
            continue
        digests = {file.position: digest_of(file.path) for file in alike}
        seen: set[bytes] = set()
        whole = max((file.header.file_bytes for file in alike if digests[file.position]), default=0)
        for file in alike:
            digest = digests[file.position]
            if digest is None and file.header.file_bytes < whole:
                unused.append(Unused(file.position, _CUT_COPY, True))
            elif digest is not None and digest in seen:
                unused.append(Unused(file.position, _COPY, False))
            else:
                kept.append(file)
                seen.add(digest or b"")
    return sorted(kept, key=lambda file: file.position)


def _separated(group: list[_File]) -> list[list[_File]]:
    """Files of one series, apart where their identifiers name several."""
    scopes = _grouped(group, lambda file: file.scope)
    if len(scopes) > 1 and (_shared(scopes, _instance) or _shared(scopes, _place)):
        return [part for scope in scopes for part in _separated(scope)]
    folders = _grouped(group, lambda file: file.path.parent)
    return folders if len(folders) > 1 and _shared(folders, _instance) else [group]


def _shared(parts: list[list[_File]], what: Callable[[_File], Hashable]) -> bool:
    """Whether two parts have something in common that only one file can have."""
    found = [{value for file in part if (value := what(file))} for part in parts]
    return sum(map(len, found)) > len(set().union(*found))


def _instance(file: _File) -> Hashable:
    return file.header.instance


def _place(file: _File) -> Hashable:
    plane = file.header.planes[0]
    return plane.position if plane.placed else plane.location if plane.location is not None else plane.number


def _volumes(group: list[_File], found: list[tuple[int, int, Series]], unused: list[Unused]) -> None:
    """Append the series of files that agree in everything but place, and the files that cannot be used."""
    first = group[0]
    entries = [_Entry(file, frame, plane) for file in group for frame, plane in enumerate(file.header.planes)]
    if first.header.apart:
        for entry in entries:
            _add([entry], Part([0], (first.header.apart,), entry.frame == 0), found)
        return
    for members in by_grid([entry.plane for entry in entries]):
        for parts, alike in _told_apart([entries[member] for member in members], unused):
            for part in parts:
                _add([alike[member] for member in part.members], part, found)


def _told_apart(alike: list[_Entry], unused: list[Unused]) -> list[tuple[list[Part], list[_Entry]]]:
    """Volumes of slices on one grid, as parts of lists of slices."""
    parts = split_repeats([entry.plane for entry in alike])
    if parts is None:
        alike = _without_repeats(alike, unused)
        parts = split_repeats([entry.plane for entry in alike])
    if parts is not None:
        return [(parts, alike)]
    folders: defaultdict[Path, list[_Entry]] = defaultdict(list)
    for entry in alike:
        folders[entry.file.path.parent].append(entry)
    split = [(split_repeats([entry.plane for entry in inside]), inside) for inside in folders.values()]
    if len(folders) == 1 or any(parts is None for parts, _ in split):
        reason = _alike_reason(alike)
        unused.extend(Unused(at, reason, True) for at in sorted({entry.file.position for entry in alike}))
        return []
    return [(parts, inside) for parts, inside in split if parts is not None]


def _alike_reason(alike: list[_Entry]) -> str:
    found = heights([entry.plane for entry in alike])
    counts = np.bincount(places(found)) if found is not None else np.array([len(alike)])
    return (
        f"several images lie at {(counts > 1).sum()} of {len(counts)} places of its series, their pixels differ, and "
        "nothing in their headers tells them apart"
    )


def _without_repeats(alike: list[_Entry], unused: list[Unused]) -> list[_Entry]:
    """Drop slices that have place, traits and pixels of another, as when one was sent twice under two identifiers."""
    found = heights([entry.plane for entry in alike])
    if found is None:
        return alike
    same: defaultdict[Hashable, list[_Entry]] = defaultdict(list)
    for entry, place in zip(alike, places(found).tolist(), strict=True):
        same[place, entry.plane.traits].append(entry)
    kept: list[_Entry] = []
    for entries in same.values():
        seen: set[bytes] = set()
        for entry in entries:
            digest = digest_of(entry.file.path, entry.frame) if len(entries) > 1 else None
            if digest is not None and digest in seen:
                if len(entry.file.header.planes) == 1:
                    unused.append(Unused(entry.file.position, _COPY, False))
                continue
            kept.append(entry)
            seen.add(digest or b"")
    return sorted(kept, key=lambda entry: (entry.file.position, entry.frame))


def _add(members: list[_Entry], part: Part, found: list[tuple[int, int, Series]]) -> None:
    """Append one series."""
    planes = [entry.plane for entry in members]
    members = [members[place] for place in slice_order(planes)]
    headers = [entry.file.header for entry in members]
    said = {header.burned_in for header in headers}
    multiframe = len(headers[0].planes) > 1
    frames = tuple(entry.frame for entry in members) if multiframe else ()
    files = members[:1] if multiframe else members
    series = Series(
        paths=tuple(entry.file.path for entry in files),
        patient=headers[0].patient,
        modality=headers[0].modality,
        burned_in=True if True in said else None if None in said else False,
        age_years=next((header.age_years for header in headers if header.age_years is not None), None),
        frames=frames,
        oriented=len(members) > 1 and all(plane.placed for plane in planes),
        differs=part.differs,
        first=part.first,
        numbered=len(members) > 1 and not in_mm(planes),
    )
    found.append((min(entry.file.position for entry in members), min(frames, default=0), series))
