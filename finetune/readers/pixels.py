"""One image file as uint8 ``C,H,W``, or ``C,D,H,W`` of a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data_shards.sources.images.kinds import PICTURES
from data_shards.sources.images.picture import read_picture
from data_shards.support.errors import DataError

SUFFIXES = (*PICTURES, ".npy")


def read_image(path: Path, size: int | None = None) -> np.ndarray:
    """Read one picture or NPY file.

    Pictures are read by the rules of :mod:`data_shards.sources.images.picture`. Intensities must already be 8 bits:
    how deeper ones are to be windowed is a decision about the images that is not taken here.

    Args:
        path: the file; an NPY holds ``H,W``, ``H,W,C`` or ``C,H,W`` with 1 or 3 channels, or a volume ``C,D,H,W``.
        size: side in pixels to resize to, bilinear with antialiasing; None keeps the size.

    Raises:
        DataError: the file is missing, unreadable, of another kind, or not 8 bits deep; or a volume is to be resized.
            The message does not name the file, whose name may be that of a person.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"expected a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError("no such file")
    if path.suffix.lower() == ".npy":
        array = _array(path)
        if array.ndim == 4:
            if size is not None:
                raise DataError(f"found a volume of shape {array.shape}; only planes can be resized to {size}")
            return array
        picture = Image.fromarray(array)
    else:
        array = _of_picture(path)
        if array.ndim == 4:
            if size is not None:
                raise DataError(f"found a volume of shape {array.shape}; only planes can be resized to {size}")
            return array
        picture = Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))
    if size is not None:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _of_picture(path: Path) -> np.ndarray:
    """``C,H,W``, or ``C,D,H,W`` of the pages of a TIFF, by the rules of the source ``images``."""
    try:
        pixels = read_picture(path).pixels
    except DataError as error:
        raise DataError(f"not a readable image: {error}") from None
    if pixels.dtype != np.uint8:
        raise DataError(f"expected 8 bits per channel, found {pixels.dtype}")
    return pixels


def _array(path: Path) -> np.ndarray:
    """The array as ``H,W`` or ``H,W,3``, the axes that Pillow knows, or as ``C,D,H,W``."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"not a readable NPY array ({type(error).__name__})") from None
    if array.dtype != np.uint8:
        raise DataError(f"expected uint8 intensities, found {array.dtype}")
    if array.ndim == 3 and array.shape[-1] not in (1, 3) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3, 4) or (array.ndim == 3 and array.shape[-1] != 3) or 0 in array.shape:
        raise DataError(
            f"expected axes H,W or H,W,C or C,H,W with 1 or 3 channels, or C,D,H,W, found shape {array.shape}"
        )
    return np.ascontiguousarray(array)
