"""What one file says before its pixels are read: all that is needed to find its series."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.sources.images.dicom import describe, elements
from data_shards.sources.images.dicom.frames import frame_of, is_enhanced
from data_shards.sources.images.dicom.layout import Layout, layout_of
from data_shards.sources.images.dicom.multiframe import frame_planes
from data_shards.sources.images.dicom.parsing import Parsed, parse
from data_shards.sources.images.dicom.plane import Plane, plane_of
from data_shards.sources.images.dicom.unusable import NotUsedError, check_usable
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Files of these are slices even where their headers give no place in the patient.
_SLICED = (Modality.mri, Modality.ct, Modality.pet)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Header:
    """The header of one file; it may name a person.

    Attributes:
        patient: as the file gives it, possibly empty.
        modality: how the image was made.
        burned_in: whether identifying text is burned into the pixels; None when the file does not say.
        age_years: age of the patient, 90 for everybody above 89; None when unknown.
        instance: its SOP Instance UID, possibly empty.
        group: what files of one volume agree in.
        stackable: whether the file may be one slice of a volume of several files.
        planes: one for each frame.
        apart: what the frames of the file differ in when each is an image of its own; empty when they are slices.
        file_bytes: size of the file.
    """

    patient: str = field(repr=False)
    modality: Modality
    burned_in: bool | None
    age_years: float | None
    instance: str = field(repr=False)
    group: tuple[str, ...] = field(repr=False)
    stackable: bool
    planes: tuple[Plane, ...] = field(repr=False)
    apart: str
    file_bytes: int


@dataclass(frozen=True)
class Unusable:
    """Why a file is in no series.

    Attributes:
        reason: without anything that the file says.
        damaged: whether an image is lost by it; False for what holds none, and for copies.
    """

    reason: str
    damaged: bool = True


def read_header(path: Path) -> Header | Unusable:
    """Read the header of one DICOM file."""
    with silent_libraries():
        try:
            return _header(parse(path, pixels=False))
        except NotUsedError as error:
            return Unusable(str(error), damaged=False)
        except DataError as error:
            return Unusable(str(error))


def planes_of(dataset: Dataset, layout: Layout) -> tuple[tuple[Plane, ...], str]:
    """The plane of each frame, and what the frames differ in when each of them is an image of its own.

    Raises:
        DataError: an attribute is not what it should be.
    """
    projection = describe.is_projection(dataset)
    enhanced = is_enhanced(dataset)
    count = layout.frames if enhanced else 1
    planes = tuple(plane_of(frame_of(dataset, index), projection=projection) for index in range(count))
    if layout.frames == 1:
        return planes, ""
    sliced = describe.modality_of(dataset) in _SLICED and layout.samples == 1
    if not enhanced:
        return frame_planes(dataset, layout.frames, planes[0], sliced=sliced)
    placed = any(plane.placed for plane in planes)
    return planes, "" if placed or sliced else "frame"


def _header(parsed: Parsed) -> Header:
    dataset = parsed.dataset
    check_usable(parsed)
    layout = layout_of(dataset, parsed.pixel_keyword)
    modality = describe.modality_of(dataset)
    planes, apart = planes_of(dataset, layout)
    kind = elements.text(dataset, "SOPClassUID")
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")
    patient, *identity = (elements.text(dataset, name) for name in names)
    sliced = modality in _SLICED and layout.samples == 1 and kind != _SECONDARY_CAPTURE
    size = (layout.rows, layout.columns, layout.samples)
    projection = describe.is_projection(dataset)
    return Header(
        patient=patient,
        modality=modality,
        burned_in=describe.burned_in(dataset),
        age_years=describe.age_of_patient(elements.text(dataset, "PatientAge")),
        instance=elements.text(dataset, "SOPInstanceUID"),
        group=(patient, *identity, kind, *map(str, size), layout.photometric),
        stackable=bool(layout.frames == 1 and not projection and identity[1] and (planes[0].placed or sliced)),
        planes=planes,
        apart=apart,
        file_bytes=parsed.file_bytes,
    )
