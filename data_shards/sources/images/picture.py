"""PNG, JPEG, TIFF, GIF, WebP and BMP through Pillow."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.background import NotFinite, without_infinities
from data_shards.sources.images.dtypes import plain
from data_shards.sources.images.nifti import TRAILING, Frames
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.support.limits import check_size, open_regular
from data_shards.vocabulary import Modality

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Pages = Literal["depth", "frames"]

_WHAT = "the picture"
_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP")
_SEVERAL_PICTURES = "MPO"  # a JPEG that carries a preview or another view behind the picture

# Pillow mode -> the mode whose pixels are kept, for all that are not grey or colour as they stand. Transparency goes:
# a scanner measures none, and what lies under it was measured.
_CONVERT = {"1": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
_IDS = {"1": "1", "P": "P", "PA": "P", "LA": "L"}  # the same where pixels are class ids
_DTYPES = {
    "1": np.uint8,
    "P": np.uint8,
    "L": np.uint8,
    "RGB": np.uint8,
    "I;16": np.uint16,
    "I;16B": np.uint16,
    "I": np.int32,
    "F": np.float32,
}
# Pillow spreads grey of 2 and 4 bits over 0 to 255; ids are divided by this.
_SPREAD = {"L;2": 85, "L;4": 17}

# Tags of TIFF 6.0, sections 8 and 19.
_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 1 | 4
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_DESCRIPTION = 270
_SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 339, 1, 2


def read_picture(
    path: Path,
    *,
    frame: int = 0,
    frames: Frames = "refuse",
    pages: Pages = "depth",
    modality: Modality = Modality.unknown,
    not_finite: NotFinite = "refuse",
    ids: bool = False,
) -> Image:
    """The picture in a file, ``C,H,W`` with one channel or three.

    - Grey of 8 bits is uint8, or int8 in a TIFF that says so; of 16 bits uint16 or int16; 32-bit TIFF is int32, uint32
      or float32. Colour is uint8.
    - A palette becomes its colours, or grey where all of them are grey; CMYK becomes RGB, black-and-white 0 and 255, an
      alpha channel is dropped; an ICC profile is not applied. The EXIF orientation is.
    - The pages of a TIFF file are the slices of a volume ``C,D,H,W``, of the same size and mode; thumbnails and
      transparency masks are none of them. The frames of a GIF, PNG or WebP, and the pages of a TIFF that ImageJ calls
      frames, lie in time and are images of their own.
    - Of a JPEG that carries further pictures (previews, other views) the first is read.
    - The spacing is unknown: the resolution that such files state is that of paper or a screen, not of the body.

    Args:
        path: the file.
        frame: which of several frames.
        frames: ``refuse`` refuses a file of several frames.
        pages: ``frames`` takes the pages of a TIFF for frames.
        modality: how the image was made.
        not_finite: what is done with NaN and infinity, see :mod:`~data_shards.sources.images.background`.
        ids: pixels are class ids: the entries of a palette are numbers and not colours, and pixels of 1, 2 and 4 bits
            stay what they are; a GIF, which renumbers them, is refused.

    Raises:
        DataError: the file is damaged, cut short, too large (Pillow's own bound of 179 million pixels in a page, and
            :data:`~data_shards.support.limits.MAX_BYTES` for all pages), has several frames, or colours of 16 bits,
            which Pillow would cut down to 8.
    """
    with open_regular(path) as file, silent_libraries():
        try:
            pixels, notes = _decode(file, frame, frames, pages, ids=ids)
        except DataError:
            raise
        except Exception as error:  # damaged files raise of many classes
            raise DataError(f"{_WHAT} cannot be decoded ({type(error).__name__})") from None
    return without_infinities(Image(plain(pixels, _WHAT), modality, notes=notes), _WHAT, not_finite)


def picture_frames(path: Path, pages: Pages) -> int:
    """How many frames the file holds; a volume is one.

    Raises:
        DataError: it cannot be read.
    """
    import PIL.Image

    with open_regular(path) as file, silent_libraries():
        try:
            with PIL.Image.open(file, formats=_FORMATS) as picture:
                return len(_frames(picture, pages))
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{_WHAT} cannot be decoded ({type(error).__name__})") from None


def picture_channels(path: Path) -> int | None:
    """1 or 3, from the header alone; None where the file cannot be read."""
    import PIL.Image

    try:
        with open_regular(path) as file, silent_libraries(), PIL.Image.open(file, formats=_FORMATS) as picture:
            return 3 if _target_mode(picture, ids=False) == "RGB" else 1
    except Exception:  # reading it says what is wrong
        return None


def picture_has_8_bits(path: Path) -> bool | None:
    """Whether values have 8 bits, from the header alone; None where the file cannot be read."""
    import PIL.Image

    try:
        with open_regular(path) as file, silent_libraries(), PIL.Image.open(file, formats=_FORMATS) as picture:
            return _DTYPES[_target_mode(picture, ids=False)] is np.uint8
    except Exception:  # reading it says what is wrong
        return None


def _decode(
    file: BinaryIO, frame: int, frames: Frames, pages: Pages, *, ids: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """``C,H,W`` or ``C,D,H,W``, and notes. Sizes stand in headers and are checked before anything is decoded."""
    import PIL.Image

    notes: tuple[str, ...] = ()
    with PIL.Image.open(file, formats=_FORMATS) as picture:
        # It has no grey: what saves it numbers the colours of each frame as it likes, and later frames come as colours.
        if ids and picture.format == "GIF":
            raise DataError("a GIF keeps colours and not the numbers that class ids are; a mask is expected as PNG")
        if picture.format == "PNG":
            picture.verify()  # the checksums of all chunks, which decoding does not compare
            if file.tell() + 4 < os.fstat(file.fileno()).st_size:  # it stops before the checksum of the last chunk
                notes = (TRAILING,)
    file.seek(0)
    with PIL.Image.open(file, formats=_FORMATS) as picture:
        of_frames = _frames(picture, pages)
        if len(of_frames) > 1 and frames == "refuse":
            raise DataError(f"{_WHAT} has {len(of_frames)} frames; frames: first or frames: all says which to take")
        if not 0 <= frame < len(of_frames):
            raise DataError(f"{_WHAT} has {len(of_frames)} frames, no frame {frame}")
        return _stacked(picture, of_frames[frame], ids=ids), notes


def _frames(picture: Picture, pages: Pages) -> list[list[int]]:
    """The places of the pages of each frame: several places are slices of a volume."""
    count = 1 if picture.format == _SEVERAL_PICTURES else int(getattr(picture, "n_frames", 1))
    if count == 1:
        return [[0]]
    if picture.format != "TIFF":
        return [[place] for place in range(count)]
    places = []
    for place in range(count):
        picture.seek(place)
        if not int(picture.tag_v2.get(_SUBFILE_TYPE, 0)) & _REDUCED_OR_MASK:  # type: ignore[attr-defined]
            places.append(place)
    picture.seek(0)
    said = _imagej(str(picture.tag_v2.get(_DESCRIPTION, "")))  # type: ignore[attr-defined]
    if said.get("channels", 1) > 1 or (said.get("frames", 1) > 1 and said.get("slices", 1) > 1):
        raise DataError(f"{_WHAT} has pages of several channels, or of slices and frames; save each volume by itself")
    in_time = pages == "frames" or said.get("frames", 1) > 1
    return [[place] for place in places] if in_time else [places]


def _imagej(description: str) -> dict[str, int]:
    """How many channels, slices and frames ImageJ says that the pages are; empty when it says nothing."""
    if not description.startswith("ImageJ="):
        return {}
    return {
        name: int(count) for name, count in re.findall(r"^(channels|slices|frames)=(\d{1,9})\s*$", description, re.M)
    }


def _stacked(picture: Picture, places: Sequence[int], *, ids: bool) -> np.ndarray:
    """One page ``C,H,W``, or several as ``C,D,H,W``."""
    kinds = set()
    for place in places:
        picture.seek(place)
        kinds.add((picture.size, _target_mode(picture, ids=ids)))
    if len(kinds) > 1:
        raise DataError(f"{_WHAT} has pages of different sizes or modes; the pages of a volume agree")
    (width, height), mode = kinds.pop()
    channels = 3 if mode == "RGB" else 1
    check_size((len(places), channels, height, width), _DTYPES[mode], _WHAT)
    picture.seek(places[0])
    first = _page(picture, mode, ids=ids)
    if len(places) == 1:
        return first
    pixels = np.empty((channels, len(places), *first.shape[1:]), first.dtype)
    pixels[:, 0] = first
    for number, place in enumerate(places[1:], start=1):
        picture.seek(place)
        values = _page(picture, mode, ids=ids)
        if (values.shape, values.dtype) != (first.shape, first.dtype):
            raise DataError(f"{_WHAT} has pages of different orientation or sign; the pages of a volume agree")
        pixels[:, number] = values
    return pixels


def _target_mode(picture: Picture, *, ids: bool) -> str:
    """The mode in which the pixels are kept.

    Raises:
        DataError: the picture has none that is supported.
    """
    mode = _CONVERT.get(picture.mode, picture.mode)
    if picture.mode in ("P", "PA") and _is_grey(picture):
        mode = "L"
    if ids:
        mode = _IDS.get(picture.mode, mode)
    if mode not in _DTYPES:
        raise DataError(f"{_WHAT} has pixels of mode {picture.mode}; grey or colour is expected")
    # The layout of the stored pixels, such as "RGB;16B", stands in the arguments of the decoder.
    if _DTYPES[mode] is np.uint8 and any(";16" in layout for layout in _layouts(picture)):
        raise DataError(f"{_WHAT} has channels of 16 bits, which would be cut to 8; 16 bits are read for grey only")
    return mode


def _is_grey(picture: Picture) -> bool:
    """Whether all colours of a palette are grey."""
    entries = np.array(picture.getpalette("RGB") or [0, 1, 2]).reshape(-1, 3)
    return bool((entries == entries[:, :1]).all())


def _layouts(picture: Picture) -> list[str]:
    return [str(tile[3]) for tile in getattr(picture, "tile", ())]


def _page(picture: Picture, mode: str, *, ids: bool) -> np.ndarray:
    """The page at which ``picture`` stands, ``C,H,W``."""
    import PIL.ImageOps

    tags: Any = getattr(picture, "tag_v2", {})
    white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    formats = np.atleast_1d(tags.get(_SAMPLE_FORMAT, _UNSIGNED))
    bits = set(np.atleast_1d(tags.get(_BITS_PER_SAMPLE, 0)).tolist())
    spread = next((_SPREAD[layout] for layout in _layouts(picture) if layout in _SPREAD), 1)
    picture.load()
    turned = PIL.ImageOps.exif_transpose(picture)
    if picture.mode == "PA" and mode == "P":
        turned = turned.getchannel(0)
    values = np.asarray(turned if turned.mode == mode or mode == "P" else turned.convert(mode))
    if mode == "1":
        values = values.astype(np.uint8)
    elif ids and spread > 1:
        values = values // spread
    if mode == "I" and tags and _UNSIGNED in formats:
        values = values.view(np.uint32)
    elif _SIGNED in formats and bits == {8}:
        values = values.view(np.int8)  # Pillow shows the bits as if they had no sign
    elif _SIGNED in formats and bits == {16}:
        values = values.astype(np.int16)
    if white_is_zero and values.dtype != np.uint8:  # Pillow inverts 8 bits and fewer
        if values.dtype.kind != "u":
            raise DataError(f"{_WHAT} has zero for white in {values.dtype}; that is supported for unsigned integers")
        values = np.iinfo(values.dtype).max - values
    return np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
