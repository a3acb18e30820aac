"""Stored pixels of one file: decompressed, unpacked, colours as RGB."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_shards.sources.images.dicom import elements
from data_shards.sources.images.dicom.codestream import check_frame, check_run_length
from data_shards.sources.images.dicom.layout import Layout
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

EXTRA = "pip install medformer[dicom]"


def decode(dataset: Dataset, pixel_keyword: str, layout: Layout, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Frames one after the other, ``H,W`` or, in colour, ``H,W,3`` as RGB, in the byte order of the file.

    Bits that do not belong to the value (PS3.5 section 8.1.1: overlays and rubbish) are cleared, signs extended.

    Args:
        dataset: with its pixels.
        pixel_keyword: which attribute they are.
        layout: of the data set, checked.
        indices: frames to decode, counted from 0, rising.

    Raises:
        DataError: pixels are missing or damaged, the compression is unknown, or its decoder is not installed.
    """
    syntax = _transfer_syntax(dataset)
    decoder = _decoder(syntax)
    _check_buffer(dataset, pixel_keyword, layout, syntax, indices)
    options: dict[str, Any] = {"allow_excess_frames": False}
    if layout.samples == 3 and elements.value(dataset, "PlanarConfiguration") is None:
        options["planar_configuration"] = 0
    # Old files may keep the value in the upper bits; pydicom takes them to be the lower ones.
    shifted = not layout.floating and layout.high != layout.stored - 1 and layout.allocated > 1
    if shifted and (not syntax.is_encapsulated or syntax.keyword == "RLELossless"):
        options["correct_unused_bits"] = False
    every = len(indices) == layout.frames  # then pydicom need not look for each frame from the start
    frames = decoder.iter_array(dataset, indices=None if every else indices, **options)
    for _ in indices:
        try:
            frame, properties = next(frames)
        except Exception as error:  # decoders raise anything on damaged bytes, and quote them
            raise DataError(f"the pixels cannot be decoded ({type(error).__name__}){_hint(decoder)}") from None
        if layout.samples == 3 and properties["photometric_interpretation"] != "RGB":
            raise DataError("the colour space is not one that can be turned into RGB")
        if "correct_unused_bits" in options:
            frame = (frame << (layout.allocated - 1 - layout.high)) >> (layout.allocated - layout.stored)
        yield frame


def _transfer_syntax(dataset: Dataset) -> UID:
    """The one of the file meta information or, without it, the native one that the data set was parsed as."""
    from pydicom import uid

    syntax = elements.text(dataset.file_meta, "TransferSyntaxUID") if hasattr(dataset, "file_meta") else ""
    if syntax:
        return uid.UID(syntax)
    implicit, little = dataset.original_encoding
    native = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
    return native if little is not False else uid.ExplicitVRBigEndian


def _decoder(syntax: UID) -> Decoder:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "private"
        raise DataError(f"transfer syntax {name} is not supported") from None
    if not decoder.is_available:
        raise DataError(f"no decoder of {syntax.name} is installed: {EXTRA}")
    return decoder


def _hint(decoder: Decoder) -> str:
    """What to install when a further decoder could have read it."""
    missing = any(line.startswith("pylibjpeg ") for line in decoder.missing_dependencies)
    return f"; a further decoder may: {EXTRA}" if missing and decoder.UID.keyword != "RLELossless" else ""


def _check_buffer(dataset: Dataset, pixel_keyword: str, layout: Layout, syntax: UID, indices: Sequence[int]) -> None:
    buffer = elements.value(dataset, pixel_keyword)
    if not isinstance(buffer, bytes):
        raise DataError("the pixels are not one block of bytes")
    if not syntax.is_encapsulated:
        bits = layout.rows * layout.columns * layout.frames * layout.samples * layout.allocated
        if layout.photometric == "YBR_FULL_422":
            bits = bits // 3 * 2
        if len(buffer) < -(-bits // 8):
            raise DataError(f"{len(buffer)} bytes of pixels, expected {-(-bits // 8)}: the file was cut off")
        return
    check = check_run_length if syntax.keyword == "RLELossless" else check_frame
    try:
        for frame in _encoded_frames(dataset, buffer, layout, indices):
            check(frame, layout)
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"a compressed frame cannot be found ({type(error).__name__})") from None


def _encoded_frames(dataset: Dataset, buffer: bytes, layout: Layout, indices: Sequence[int]) -> Iterator[bytes]:
    from pydicom.encaps import generate_frames, get_frame

    tables = [elements.value(dataset, f"ExtendedOffsetTable{part}") for part in ("", "Lengths")]
    offsets = (tables[0], tables[1]) if all(tables) else None
    if len(indices) == layout.frames:
        frames = generate_frames(buffer, number_of_frames=layout.frames, extended_offsets=offsets)
        return itertools.islice(frames, layout.frames)
    return (get_frame(buffer, index, number_of_frames=layout.frames, extended_offsets=offsets) for index in indices)
