"""Size that a compressed frame itself claims, read from its markers: decoders reserve memory by it, not by the header.

JPEG and JPEG-LS: ITU-T T.81 annex B and T.87 annex C. JPEG 2000 and HTJ2K: ITU-T T.800 annex A.5.
"""

from __future__ import annotations

import struct

from data_shards.sources.images.dicom.layout import Layout
from data_shards.support.errors import DataError

# Start-of-frame markers: C0 to CF without DHT (C4), JPG (C8) and DAC (CC), and SOF55 of JPEG-LS (F7).
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def check_frame(frame: bytes, layout: Layout) -> None:
    """Check the claim of a frame against the header of the file.

    Raises:
        DataError: the frame is no JPEG codestream, or its size is not the one in the header.
    """
    found = _jpeg2000(frame) if frame[:4] == b"\xff\x4f\xff\x51" or frame[4:8] == b"jP  " else _jpeg(frame)
    if found is None:
        raise DataError("a compressed frame does not start as its transfer syntax says")
    expected = (layout.rows, layout.columns, layout.samples)
    if found != expected:
        raise DataError(
            f"a compressed frame is {found[0]} x {found[1]} with {found[2]} samples, the header says "
            f"{expected[0]} x {expected[1]} with {expected[2]}"
        )


def check_run_length(frame: bytes, layout: Layout) -> None:
    """Check that run lengths cannot expand much beyond a frame (PS3.5 annex G): one byte makes at most 64.

    Raises:
        DataError: the frame is longer than the worst packing of its pixels.
    """
    pixels = layout.byte_count // layout.frames
    if len(frame) > 2 * pixels + 1024:
        raise DataError(f"a run-length frame of {len(frame)} bytes for {pixels} bytes of pixels")


def _jpeg(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of the first frame header; None when there is none."""
    if frame[:2] != b"\xff\xd8":
        return None
    offset = 2
    while offset + 10 <= len(frame):
        if frame[offset] != 0xFF:
            return None
        marker = frame[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
        elif marker in _WITHOUT_LENGTH:
            offset += 2
        elif marker in _START_OF_FRAME:
            rows, columns, components = struct.unpack_from(">HHB", frame, offset + 5)
            return rows, columns, components
        else:
            length = struct.unpack_from(">H", frame, offset + 2)[0]
            if length < 2:
                return None
            offset += 2 + length
    return None


def _jpeg2000(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of the SIZ marker, which is the first in a codestream; a JP2 wrapper is skipped."""
    start = 0 if frame[:2] == b"\xff\x4f" else frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 42:
        return None
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", frame, start + 8)
    components = struct.unpack_from(">H", frame, start + 40)[0]
    columns, rows = right - left, bottom - top
    if min(rows, columns, tile_width, tile_height) < 1 or -(-rows // tile_height) * -(-columns // tile_width) > 65535:
        return None
    return rows, columns, components
