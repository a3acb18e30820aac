"""Which files make one image or volume, from their headers alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.sources.images.dicom import describe, elements
from data_shards.sources.images.dicom.frames import frame_of, is_enhanced
from data_shards.sources.images.dicom.geometry import slice_order
from data_shards.sources.images.dicom.layout import layout_of
from data_shards.sources.images.dicom.parsing import Parsed, parse
from data_shards.sources.images.dicom.plane import Plane, plane_of
from data_shards.sources.images.dicom.stacks import by_grid, split_repeats
from data_shards.sources.images.dicom.unusable import check_usable
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality

# Files of these are slices even where their headers give no place in the patient.
_SLICED = (Modality.mri, Modality.ct, Modality.pet)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


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
    """

    paths: tuple[Path, ...] = field(repr=False)
    patient: str = field(repr=False)
    modality: Modality = Modality.unknown
    burned_in: bool | None = None
    age_years: float | None = None
    frames: tuple[int, ...] = ()
    oriented: bool = False


@dataclass(frozen=True)
class _Header:
    """What one file says; ``planes`` has one entry for each frame, or a single one when frames are not described."""

    position: int
    patient: str
    modality: Modality
    burned_in: bool | None
    age_years: float | None
    instance: str
    group: tuple[Hashable, ...]
    planes: tuple[Plane, ...]
    enhanced: bool
    file_bytes: int


def find_series(paths: Sequence[Path]) -> tuple[list[Series], list[tuple[int, str]]]:
    """Group files into images and volumes; reads headers only.

    Files of one series of one patient make a volume when they agree in kind, size, spacing, orientation and frame of
    reference. Slices at one place that differ in echo time, time point, b-value or another trait become separate
    volumes. A multi-frame file is never joined with others. Of several files with one SOP instance the largest is
    used, the first of these: a copy that was cut short does not take the place of the whole.

    Args:
        paths: DICOM files; the order does not change what is found.

    Returns:
        Series in the order of their first file in ``paths``, and for each file that is not used its position in
        ``paths`` and the reason, without anything that the file says.
    """
    headers: list[_Header] = []
    unused: list[tuple[int, str]] = []
    kept: dict[str, _Header] = {}
    with silent_libraries():
        for position, path in enumerate(paths):
            try:
                header = _header(position, parse(path, pixels=False))
            except DataError as error:
                unused.append((position, str(error)))
                continue
            if not header.instance:
                headers.append(header)
                continue
            other = kept.setdefault(header.instance, header)
            if other is not header:
                smaller, larger = sorted((header, other), key=lambda one: (one.file_bytes, -one.position))
                kept[header.instance] = larger
                unused.append((smaller.position, "the same SOP instance as another file"))
    headers = sorted([*headers, *kept.values()], key=lambda header: header.position)
    groups: dict[Hashable, list[_Header]] = {}
    for header in headers:
        groups.setdefault(header.group, []).append(header)
    found: list[tuple[int, int, Series]] = []
    for group in groups.values():
        _volumes(group, paths, found, unused)
    return [series for *_, series in sorted(found, key=lambda entry: entry[:2])], sorted(unused)


def _header(position: int, parsed: Parsed) -> _Header:
    dataset = parsed.dataset
    check_usable(parsed)
    layout = layout_of(dataset, parsed.pixel_keyword)
    modality, enhanced = describe.modality_of(dataset), is_enhanced(dataset)
    projection = describe.is_projection(dataset)
    count = layout.frames if enhanced else 1
    planes = tuple(plane_of(frame_of(dataset, index), projection=projection) for index in range(count))
    kind = elements.text(dataset, "SOPClassUID")
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")
    patient, *identity = (elements.text(dataset, name) for name in names)
    sliced = modality in _SLICED and layout.samples == 1 and kind != _SECONDARY_CAPTURE
    stackable = layout.frames == 1 and not projection and identity[1] and (planes[0].placed or sliced)
    alone = () if stackable else (position,)
    size = (layout.rows, layout.columns, layout.samples, layout.photometric)
    return _Header(
        position=position,
        patient=patient,
        modality=modality,
        burned_in=describe.burned_in(dataset),
        age_years=describe.age_of_patient(elements.text(dataset, "PatientAge")),
        instance=elements.text(dataset, "SOPInstanceUID"),
        group=(patient, *identity, kind, *size, *alone),
        planes=planes,
        enhanced=enhanced,
        file_bytes=parsed.file_bytes,
    )


def _volumes(
    group: list[_Header], paths: Sequence[Path], found: list[tuple[int, int, Series]], unused: list[tuple[int, str]]
) -> None:
    """Append the series of files that agree in everything but place, and the files that cannot be used."""
    entries = [(header, index, plane) for header in group for index, plane in enumerate(header.planes)]
    multiframe = len(group) == 1 and group[0].enhanced
    for alike in by_grid([plane for *_, plane in entries]):
        volumes = split_repeats([entries[member][2] for member in alike])
        if volumes is None:
            reason = "several images lie at one place and nothing in their headers tells them apart"
            unused.extend((position, reason) for position in sorted({entries[member][0].position for member in alike}))
            continue
        for volume in volumes:
            members = [entries[alike[member]] for member in volume]
            order = slice_order([plane for *_, plane in members])
            members = [members[place] for place in order]
            ordered = [header for header, *_ in members]
            said = {header.burned_in for header in ordered}
            frames = tuple(index for _, index, _ in members) if multiframe else ()
            files = ordered[:1] if multiframe else ordered
            series = Series(
                paths=tuple(paths[header.position] for header in files),
                patient=ordered[0].patient,
                modality=ordered[0].modality,
                burned_in=True if True in said else None if None in said else False,
                age_years=next((header.age_years for header in ordered if header.age_years is not None), None),
                frames=frames,
                oriented=len(members) > 1 and all(plane.placed for *_, plane in members),
            )
            found.append((min(header.position for header in ordered), min(frames, default=0), series))
