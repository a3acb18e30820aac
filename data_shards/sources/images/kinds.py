"""What kind of image a file holds: by its first bytes, and by its name only where these say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from data_shards.sources.images.nifti_header import is_nifti
from data_shards.support.errors import DataError
from data_shards.support.limits import BoundedReader, open_regular

Kind = Literal["picture", "npy", "nifti", "dicom"]

_STARTS: dict[bytes, Kind] = {
    b"\x89PNG\r\n\x1a\n": "picture",
    b"\xff\xd8\xff": "picture",
    b"II*\0": "picture",
    b"MM\0*": "picture",
    b"II+\0": "picture",  # BigTIFF
    b"MM\0+": "picture",
    b"GIF8": "picture",
    b"\x93NUMPY": "npy",
}
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".webp", ".bmp")
_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys(PICTURES, "picture"),
    ".npy": "npy",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".dcm": "dicom",
    ".ima": "dicom",
}
_HEADER_BYTES = 348
_BITMAP_HEADERS = {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}  # lengths that BMP knows


def kind_of(path: Path) -> tuple[Kind | None, str]:
    """The kind of image in a file, or None and the reason why there is none.

    A file whose name promises an image and whose bytes do not is of the kind of its name: reading it then says what is
    wrong, where passing over it would hide the damage.
    """
    suffix = next((kind for end, kind in _SUFFIXES.items() if path.name.lower().endswith(end)), None)
    try:
        kind, reason = _by_content(path)
    except DataError as error:
        kind, reason = None, str(error)
    return kind or suffix, reason


def _by_content(path: Path) -> tuple[Kind | None, str]:
    from data_shards.sources.images.dicom import is_dicom

    with open_regular(path) as file:
        start = file.read(_HEADER_BYTES)
        file.seek(0)
        if start[128:132] == b"DICM":  # first: the 128 bytes before may be those of a TIFF file (PS3.10 section 7.1)
            return "dicom", ""
        for magic, kind in _STARTS.items():
            if start.startswith(magic):
                return kind, ""
        if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            return "picture", ""
        if start[:2] == b"BM" and start[6:10] == bytes(4) and start[14:18] in _BITMAP_HEADERS:
            return "picture", ""
        if start.startswith(b"\x1f\x8b"):
            inside = BoundedReader(file, "the file", inflate=True).read(_HEADER_BYTES)
            return ("nifti", "") if is_nifti(inside) else (None, "a gzip file without a NIfTI volume inside")
    if is_nifti(start):
        return "nifti", ""
    if is_dicom(path):
        return "dicom", ""
    if start.startswith(b"PK\x03\x04"):
        return None, "a zip or npz archive; save single arrays as npy"
    if start[344:348] == b"ni1\0":
        return None, "the header of a NIfTI pair; join header and image in one .nii file"
    return None, "not a PNG, JPEG, TIFF, GIF, WebP, BMP, npy, NIfTI or DICOM file" if start else "an empty file"
