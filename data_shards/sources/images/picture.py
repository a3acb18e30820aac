"""PNG, JPEG and TIFF through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.dtypes import plain
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.support.limits import check_size, open_regular
from data_shards.vocabulary import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_WHAT = "the picture"
_FORMATS = ("PNG", "JPEG", "TIFF")

# Pillow mode -> the mode whose pixels are kept, for all that are not grey or colour as they stand. Transparency goes:
# a scanner measures none, and what lies under it was measured.
_CONVERT = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_DTYPES = {"L": np.uint8, "RGB": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}

# Tags of TIFF 6.0, sections 8 and 19.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_SAMPLE_FORMAT, _UNSIGNED = 339, 1


def read_picture(path: Path, *, modality: Modality = Modality.unknown) -> Image:
    """The picture in a PNG, JPEG or TIFF file, ``C,H,W`` with one channel or three.

    - Grey of 8 bits is uint8, of 16 bits uint16; 32-bit TIFF is int32, uint32 or float32. Colour is uint8.
    - A palette and CMYK become RGB, black-and-white becomes 0 and 255, an alpha channel is dropped; an ICC profile is
      not applied. The EXIF orientation is.
    - The pages of a TIFF file are the slices of a volume ``C,D,H,W``; they have the same size and mode.
    - The spacing is unknown: the resolution that such files state is that of paper or a screen, not of the body.

    Args:
        path: the file.
        modality: how the image was made.

    Raises:
        DataError: the file is damaged, cut short, too large (Pillow's own bound of 179 million pixels in a page, and
            :data:`~data_shards.support.limits.MAX_BYTES` for all pages), animated, or has colours of 16 bits,
            which Pillow would cut down to 8.
    """
    with open_regular(path) as file, silent_libraries():
        try:
            pixels = _decode(file)
        except DataError:
            raise
        except Exception as error:  # damaged files raise of many classes
            raise DataError(f"{_WHAT} cannot be decoded ({type(error).__name__})") from None
    return Image(plain(pixels, _WHAT), modality)


def _decode(file: BinaryIO) -> np.ndarray:
    """All pages, ``C,H,W`` or ``C,D,H,W``. Sizes stand in headers and are checked before anything is decoded."""
    import PIL.Image

    with PIL.Image.open(file, formats=_FORMATS) as picture:
        if picture.format == "PNG":
            picture.verify()  # the checksums of all chunks, which decoding does not compare
    file.seek(0)
    with PIL.Image.open(file, formats=_FORMATS) as picture:
        count = int(getattr(picture, "n_frames", 1))
        if count > 1 and picture.format != "TIFF":
            raise DataError(f"{_WHAT} has {count} frames; one is expected")
        kinds = set()
        for page in range(count):
            picture.seek(page)
            kinds.add((picture.size, _target_mode(picture)))
        if len(kinds) > 1:
            raise DataError(f"{_WHAT} has pages of different sizes or modes; the pages of a volume agree")
        (width, height), mode = kinds.pop()
        channels = 3 if mode == "RGB" else 1
        check_size((count, channels, height, width), _DTYPES[mode], _WHAT)
        if count == 1:
            return _page(picture, mode)
        picture.seek(0)
        first = _page(picture, mode)
        pixels = np.empty((channels, count, *first.shape[1:]), first.dtype)
        pixels[:, 0] = first
        for page in range(1, count):
            picture.seek(page)
            values = _page(picture, mode)
            if (values.shape, values.dtype) != (first.shape, first.dtype):
                raise DataError(f"{_WHAT} has pages of different orientation or sign; the pages of a volume agree")
            pixels[:, page] = values
        return pixels


def _target_mode(picture: Picture) -> str:
    """The mode in which the pixels are kept.

    Raises:
        DataError: the picture has none that is supported.
    """
    mode = _CONVERT.get(picture.mode, picture.mode)
    if mode not in _DTYPES:
        raise DataError(f"{_WHAT} has pixels of mode {picture.mode}; grey or colour is expected")
    # The layout of the stored pixels, such as "RGB;16B", stands in the arguments of the decoder.
    if _DTYPES[mode] is np.uint8 and any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ())):
        raise DataError(f"{_WHAT} has channels of 16 bits, which would be cut to 8; 16 bits are read for grey only")
    return mode


def _page(picture: Picture, mode: str) -> np.ndarray:
    """The page at which ``picture`` stands, ``C,H,W``."""
    import PIL.ImageOps

    tags: Any = getattr(picture, "tag_v2", {})
    white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    unsigned = _UNSIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, _UNSIGNED))
    picture.load()
    turned = PIL.ImageOps.exif_transpose(picture)
    values = np.asarray(turned if turned.mode == mode else turned.convert(mode))
    if mode == "I" and tags and unsigned:
        values = values.view(np.uint32)
    if white_is_zero and mode != "L":  # Pillow inverts 8 bits and fewer
        if values.dtype.kind != "u":
            raise DataError(f"{_WHAT} has zero for white in {values.dtype}; that is supported for unsigned integers")
        values = np.iinfo(values.dtype).max - values
    return np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
