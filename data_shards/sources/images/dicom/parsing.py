"""Data sets out of files: only the attributes that images need, in bounded memory."""

from __future__ import annotations

import functools
import io
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from data_shards.sources.images.dicom.layout import layout_of
from data_shards.support.errors import DataError
from data_shards.support.limits import MAX_BYTES, open_regular

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Attributes that are read; names, birth dates, accession numbers, descriptions and comments are never parsed.
_HEADER = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType
    PatientID PatientAge BurnedInAnnotation DirectoryRecordSequence InConcatenationTotalNumber TotalPixelMatrixRows
    Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PlanarConfiguration
    BitsAllocated BitsStored HighBit PixelRepresentation
    ImagePositionPatient ImageOrientationPatient SliceLocation InstanceNumber PixelSpacing ImagerPixelSpacing
    SliceThickness SpacingBetweenSlices SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    AcquisitionNumber AcquisitionDateTime AcquisitionTime CardiacCyclePosition CardiacNumberOfImages ConvolutionKernel
    DiffusionBValue DiffusionGradientOrientation EchoTime FlipAngle FrameReferenceTime InversionTime KVP
    NominalPercentageOfCardiacPhase NumberOfTemporalPositions RespiratoryCyclePosition SequenceName
    TemporalPositionIdentifier TemporalPositionTimeOffset TriggerTime
    FrameIncrementPointer FrameTime FrameTimeVector SliceLocationVector SliceVector TimeSlotVector TimeSliceVector
    RRIntervalVector PhaseVector AngularViewVector RotationVector DetectorVector EnergyWindowVector
    DetectorInformationSequence
    PixelPaddingValue PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit
    DoubleFloatPixelPaddingValue DoubleFloatPixelPaddingRangeLimit
    RescaleSlope RescaleIntercept ModalityLUTSequence VOILUTSequence VOILUTFunction WindowCenter WindowWidth
""".split()  # noqa: SIM905
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COLOURS = ("Red", "Green", "Blue")
_PALETTE = [
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]
_OFFSETS = ["ExtendedOffsetTable", "ExtendedOffsetTableLengths"]

# Everything before the pixels; 1000 frames with functional groups take about 2 MiB.
_HEADER_BYTES = 64 << 20
_PREFIX_BYTES = 132


@dataclass(frozen=True)
class Parsed:
    """A data set, which pixel attribute its file has (empty when it has none), and the bytes of the file."""

    dataset: Dataset
    pixel_keyword: str
    file_bytes: int = 0


def parse(path: Path, *, pixels: bool) -> Parsed:
    """Read one file; call inside :func:`~data_shards.sources.images.quiet.silent_libraries`.

    Args:
        path: the file.
        pixels: read pixels and palettes too; otherwise stop before them.

    Raises:
        DataError: the file cannot be opened or is not a data set; nothing of it is quoted.
    """
    with open_regular(Path(path)) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise DataError(f"a file of {size} bytes, at most {MAX_BYTES} are accepted")
        try:
            return replace(_parse(_Clamped(file, size), pixels), file_bytes=size)
        except DataError:
            raise
        except Exception as error:  # pydicom raises anything on damaged bytes, and quotes them
            raise DataError(f"not a readable DICOM data set ({type(error).__name__})") from None


def _parse(file: _Clamped, pixels: bool) -> Parsed:
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if file.read(_PREFIX_BYTES)[128:] != b"DICM":
        file.seek(0)
    meta = read_dataset(cast(BinaryIO, file), False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return _read(file, pixels)
    deflated = file.read()
    header = _read_inflated(_inflate(deflated, _HEADER_BYTES)[0], meta, pixels=False)
    if not pixels or not header.pixel_keyword:
        return header
    allowed = _HEADER_BYTES + layout_of(header.dataset, header.pixel_keyword).byte_count
    plain, complete = _inflate(deflated, allowed)
    if not complete:
        raise DataError("the deflated data set holds more than its header describes")
    return _read_inflated(plain, meta, pixels=True)


def _inflate(deflated: bytes, at_most: int) -> tuple[bytes, bool]:
    """At most so many bytes of plain text, and whether that was all of it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(deflated, at_most)
    return plain, not inflater.unconsumed_tail


def _read(file: _Clamped, pixels: bool) -> Parsed:
    from pydicom.filereader import read_partial

    seen = _PixelWatch(stop=not pixels)
    dataset = read_partial(cast(BinaryIO, file), seen, force=True, specific_tags=_tags(pixels))
    return Parsed(dataset, seen.keyword)


def _read_inflated(plain: bytes, meta: Dataset, *, pixels: bool) -> Parsed:
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    seen = _PixelWatch(stop=not pixels)
    dataset = read_dataset(io.BytesIO(plain), False, True, stop_when=seen, specific_tags=_tags(pixels))
    cast(Any, dataset).file_meta = FileMetaDataset(meta)
    dataset.set_original_encoding(False, True)
    return Parsed(dataset, seen.keyword)


@functools.cache
def _tags(pixels: bool) -> list[Any]:
    from pydicom.tag import Tag

    return [Tag(keyword) for keyword in (*_HEADER, *(_PALETTE + _OFFSETS + list(PIXELS) if pixels else ()))]


class _PixelWatch:
    """pydicom's ``stop_when``: notes which pixel attribute comes, and stops there when asked to."""

    def __init__(self, *, stop: bool) -> None:
        self.keyword, self._stop = "", stop

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        keyword = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}.get(tag)
        self.keyword = self.keyword or keyword or ""
        return self._stop and keyword is not None


class _Clamped:
    """A file that never reserves memory for bytes which a damaged length promises and the file does not have."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.tell, self.seek, self.close = file.tell, file.seek, file.close

    def read(self, count: int = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if count < 0 else min(count, left))
