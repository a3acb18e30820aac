"""Whether a file is DICOM, by its content and not by its name: archives give DICOM files any suffix or none."""

from __future__ import annotations

import struct
from pathlib import Path

from data_shards.support.limits import open_regular

_WINDOW_BYTES = 4096
_ELEMENTS = 3  # so many well-formed elements in a row do not happen by chance

# Value representations that are followed by two reserved bytes and a length of four (PS3.5 section 7.1.2).
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH"),
    *(b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
}
_ENCODINGS = (("<", True), ("<", False), (">", True))  # byte order, explicit value representation


def is_dicom(path: Path) -> bool:
    """Whether the file holds a DICOM data set; reads at most 4 KiB and decodes no value.

    True with the prefix ``DICM`` at byte 128 (PS3.10 section 7.1), and also without it when the file starts with
    several well-formed elements in rising order, of group 0002 or 0008, in any of the three native encodings.

    Raises:
        DataError: the file cannot be opened; the message does not name it.
    """
    with open_regular(Path(path)) as file:
        start = file.read(_WINDOW_BYTES)
        if start[128:132] == b"DICM":
            return True
        size = file.seek(0, 2)
    return any(_starts_with_elements(start, size, order, explicit) for order, explicit in _ENCODINGS)


def _starts_with_elements(start: bytes, size: int, order: str, explicit: bool) -> bool:
    offset, previous, count = 0, (0, 0), 0
    while offset + 12 <= len(start) and count < _ELEMENTS:
        group, number = struct.unpack_from(f"{order}HH", start, offset)
        representation = start[offset + 4 : offset + 6]
        if count == 0 and group not in (0x0002, 0x0008):
            return False
        if group & 1 or group > 0x0040 or (count and (group, number) <= previous):
            return False
        if not explicit:
            header, length = 8, struct.unpack_from(f"{order}I", start, offset + 4)[0]
        elif representation in _LONG:
            header, length = 12, struct.unpack_from(f"{order}I", start, offset + 8)[0]
        elif representation in _SHORT:
            header, length = 8, struct.unpack_from(f"{order}H", start, offset + 6)[0]
        else:
            return False
        offset += header + length
        if length & 1 or offset > size:
            return False
        previous, count = (group, number), count + 1
    # A value longer than the window ends the walk; what was seen before it decides.
    return count >= _ELEMENTS or (count == _ELEMENTS - 1 and offset > len(start))
