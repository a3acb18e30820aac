"""DICOM files that hold no image to learn from, and why; reasons quote nothing but the standard's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_shards.sources.images.dicom import elements
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from data_shards.sources.images.dicom.parsing import Parsed

_DIRECTORY = "1.2.840.10008.1.3.10"

# SOP classes (PS3.4 annex B) whose pixels are not an image of a patient.
_NO_IMAGE = {
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiation dose grid, no image",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation, no image",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation, no image",
}


class NotUsedError(DataError):
    """A sound file that holds no image to learn from, or one of a kind that is not read."""


def check_usable(parsed: Parsed) -> None:
    """Refuse what holds no image.

    Raises:
        NotUsedError: the file is a directory, holds a report, plan or the like, a dose grid, a segmentation, a
            localizer, a mosaic, a part of an instance that was cut into several files, or the tiles of a whole slide.
        DataError: it should hold pixels and does not.
    """
    dataset = parsed.dataset
    kind = elements.text(dataset, "SOPClassUID")
    stored_as = elements.text(dataset.file_meta, "MediaStorageSOPClassUID") if hasattr(dataset, "file_meta") else ""
    if stored_as == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        raise NotUsedError("a DICOMDIR index, no image")
    if not parsed.pixel_keyword and not len(dataset):
        raise DataError("not a readable DICOM data set: it has no attribute of an image")
    if not parsed.pixel_keyword and ("Rows" in dataset or "Image Storage" in _standard_name(kind)):
        raise DataError(f"an image without pixel data{_standard_name(kind)}: the file was cut off")
    if not parsed.pixel_keyword:
        raise NotUsedError(f"no pixel data{_standard_name(kind)}")
    if kind in _NO_IMAGE:
        raise NotUsedError(_NO_IMAGE[kind])
    types = elements.text(dataset, "ImageType").upper().split("\\")
    if "LOCALIZER" in types:
        raise NotUsedError("a localizer, taken only to plan the images")
    if "MOSAIC" in types:
        raise NotUsedError("a mosaic: slices of a volume side by side in one plane")
    if elements.integer(dataset, "InConcatenationTotalNumber", 1) > 1:
        raise NotUsedError("a part of an image that was cut into several files (concatenation)")
    if "TotalPixelMatrixRows" in dataset and elements.integer(dataset, "NumberOfFrames", 1) > 1:
        raise NotUsedError("a whole slide in tiles; its frames are no slices of a volume")


def _standard_name(uid: str) -> str:
    """The name of an SOP class in brackets, when it is one of the standard's: any other text may hold anything."""
    from pydicom.uid import UID

    name = UID(uid).name  # of an unknown identifier: itself
    return f" ({name})" if uid and name != uid else ""
