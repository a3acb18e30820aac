"""Whether two files hold the same image: by their pixels, because identifiers repeat where files were de-identified."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from data_shards.sources.images.dicom import elements
from data_shards.sources.images.dicom.decode import decode
from data_shards.sources.images.dicom.layout import layout_of
from data_shards.sources.images.dicom.parsing import parse
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError

# With these, equal stored values are equal images; compression and byte order do not matter.
_MEANING = ("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept")


def digest_of(path: Path, frame: int | None = None) -> bytes | None:
    """A digest of the decoded pixels and of what they mean.

    Args:
        path: a DICOM file.
        frame: one frame, counted from 0; None for all.

    Returns:
        None when the pixels cannot be decoded.
    """
    digest = hashlib.blake2b(digest_size=16)
    with silent_libraries():
        try:
            parsed = parse(path, pixels=True)
            layout = layout_of(parsed.dataset, parsed.pixel_keyword)
            digest.update(repr([elements.text(parsed.dataset, name) for name in _MEANING]).encode())
            frames = range(layout.frames) if frame is None else [frame]
            for stored in decode(parsed.dataset, parsed.pixel_keyword, layout, frames):
                digest.update(repr(stored.shape).encode())
                digest.update(np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).data)
        except (DataError, MemoryError):
            return None
    return digest.digest()
