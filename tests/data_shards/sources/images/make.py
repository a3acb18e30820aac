"""Files with known content: volumes in any orientation, pictures chunk by chunk, whole archives."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.source import Images

SALT = "a salt for tests only"
# D, H, W of the reference volume and what lies between its voxels: no two alike, so that no exchange goes unnoticed.
SIZES, SPACING = (3, 4, 5), (3.0, 2.0, 0.5)
# Each axis of a file runs along one of these, in either direction; the first letter is the direction of D, H, W.
PAIRS = ("SI", "PA", "LR")
# Millimetres of NIfTI grow to right, anterior, superior: the row of the affine and the sign of each direction.
_WORLD = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def reference(dtype: Any = np.int16) -> np.ndarray:
    """The volume ``D,H,W`` with axes superior, posterior, left; every value once."""
    return np.arange(1, 61, dtype=dtype).reshape(SIZES)


def all_orientations() -> list[str]:
    """The 48 ways in which the axes i, j, k of a file can run, as in ``RAS``."""
    return ["".join(letters) for order in itertools.permutations(PAIRS) for letters in itertools.product(*order)]


def stored_as(volume: np.ndarray, codes: str, spacing: Sequence[float] = SPACING) -> tuple[np.ndarray, np.ndarray]:
    """The volume ``D,H,W`` as ``i,j,k`` running to ``codes``, and its affine; from the definition alone.

    Every voxel lies at one place in the patient, whatever the codes.
    """
    axes = [next(axis for axis, pair in enumerate(PAIRS) if letter in pair) for letter in codes]
    data = volume.transpose(axes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[:3, 3] = (-7.0, 11.0, 5.0)
    for place, (letter, axis) in enumerate(zip(codes, axes, strict=True)):
        if letter != PAIRS[axis][0]:
            data = np.flip(data, place)
            row, sign = _WORLD[PAIRS[axis][0]]
            affine[row, 3] += sign * spacing[axis] * (volume.shape[axis] - 1)
        row, sign = _WORLD[letter]
        affine[row, place] = sign * spacing[axis]
    return np.ascontiguousarray(data), affine


def nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None, *, by: str = "sform", **fields: Any) -> Path:
    """Write a NIfTI-1 file; ``fields`` of the header are set as they are given, in ``data``'s own dtype."""
    image = nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine, dtype=data.dtype)
    image.set_sform(affine, code=1 if by == "sform" and affine is not None else 0)
    image.set_qform(affine, code=1 if by == "qform" and affine is not None else 0)
    nibabel.save(image, path)
    return patched(path, **fields) if fields else path


def patched(path: Path, **fields: Any) -> Path:
    """Change fields of the header of an uncompressed NIfTI-1 file where they stand."""
    content = bytearray(path.read_bytes())
    header = np.frombuffer(bytes(content[:348]), nibabel.nifti1.header_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.tobytes()
    path.write_bytes(content)
    return path


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, raw: bytes, *, depth: int = 8, colour: int = 0, extra: Iterable[bytes] = ()) -> bytes:
    """A PNG file from its raw scan lines; ``colour`` is the colour type of the standard."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def grey_png(path: Path, value: int, *, size: int = 4) -> Path:
    """A small grey picture whose pixels differ from those of every other value."""
    pixels = (np.arange(size * size) + value).astype(np.uint8).reshape(size, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(size, size, b"".join(b"\0" + row.tobytes() for row in pixels)))
    return path


def table(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """A CSV file."""
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def images(root: Path, *, salt: str = SALT, **options: Any) -> Images:
    """The source of a folder."""
    return Images(ImagesConfig(root=root, **({"name": "own"} | options)), salt)


def tree(root: Path, names: Mapping[str, int] | Sequence[str]) -> Path:
    """Grey pictures below ``root``, each different."""
    numbers = names if isinstance(names, Mapping) else {name: number for number, name in enumerate(names)}
    for name, number in numbers.items():
        grey_png(root / name, number)
    return root
