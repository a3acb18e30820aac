"""How pixels stand in a shard: raw bytes, an ``.npy`` file of any kind, gzipped or not, or a PNG or JPEG picture."""

from __future__ import annotations

import ast
import io
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib

from data_shards.format.index import MAX_AXES, Codec
from data_shards.support.errors import DataError

# Decoded bytes of one image; what claims more is refused before any of it is decoded.
MAX_BYTES = 2 << 30

_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER_BYTES = 10_000
_GZIP = 31
_PICTURES = ("PNG", "JPEG")
# Mode of PIL: channels and dtype.
_MODES = {"L": (1, "|u1"), "RGB": (3, "|u1"), "I;16": (1, "<u2")}

# What an array of so many axes is taken for, unless the user says otherwise.
DEFAULT_AXES = {2: "HW", 3: "CHW", 4: "CDHW"}
_CHANNELS_FIRST = ("HW", "CHW", "DHW", "CDHW")
_CHANNELS_LAST = ("HWC", "DHWC")


@dataclass(frozen=True)
class Stored:
    """How one image stands in the member of a shard.

    Attributes:
        codec: how the bytes from ``start`` on are to be read.
        start: where they begin in the member.
        dtype: of the pixels.
        shape: of the pixels, ``C,H,W`` or ``C,D,H,W``.
    """

    codec: Codec
    start: int
    dtype: str
    shape: tuple[int, ...]


def examine_npy(content: bytes, axes: str | None = None) -> Stored:
    """How the array of an ``.npy`` file is to be read; one that lies as ours do is read as raw bytes.

    Args:
        content: the whole file.
        axes: what the axes of the array are: ``HW``, ``CHW``, ``HWC``, ``DHW``, ``CDHW`` or ``DHWC``. None takes
            ``HW``, ``CHW`` or ``CDHW`` by their number.

    Raises:
        DataError: it is not an array of integers or floats with such axes, or its size is not what its header says.
    """
    header = _npy_header(content)
    axes = axes or DEFAULT_AXES.get(len(header.shape))
    if axes is None or len(axes) != len(header.shape):
        raise DataError(f"an array of shape {header.shape}, expected axes {axes or 'HW, CHW or CDHW'}")
    if axes in _CHANNELS_LAST:
        *inner, channels = header.shape
        shape, codec = (channels, *inner), Codec.npy_channels_last
    elif axes in _CHANNELS_FIRST:
        shape = header.shape if axes.startswith("C") else (1, *header.shape)
        codec = Codec.npy if header.fortran_order or header.dtype.byteorder == ">" else Codec.raw
    else:
        raise DataError(f"axes {axes!r}; expected one of {', '.join((*_CHANNELS_FIRST, *_CHANNELS_LAST))}")
    start = header.start if codec is Codec.raw else 0
    return Stored(codec, start, header.dtype.newbyteorder("<").str, shape)


def examine_picture(content: bytes) -> Stored:
    """How a PNG or JPEG file is to be read.

    Raises:
        DataError: it is not one with grey or RGB pixels, or would be too large when decoded.
    """
    with _opened(content) as picture:
        if picture.mode not in _MODES:
            raise DataError(f"a picture of mode {picture.mode}, expected {', '.join(_MODES)}: convert it first")
        channels, dtype = _MODES[picture.mode]
        shape = (channels, picture.height, picture.width)
    _check_size(shape, np.dtype(dtype))
    return Stored(Codec.picture, 0, dtype, shape)


def decode(content: bytes | memoryview, codec: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of an image.

    Args:
        content: what stands in the shard.
        codec: one of :class:`~data_shards.format.index.Codec`.
        dtype: dtype of the pixels, little-endian.
        shape: shape of the pixels.

    Raises:
        DataError: the content is not an image of that dtype and shape.
    """
    if codec == Codec.raw:
        if len(content) != math.prod(shape) * np.dtype(dtype).itemsize:
            raise DataError(f"{len(content)} bytes are not an image of {shape} {dtype}")
        pixels = np.frombuffer(content, dtype).reshape(shape)
    elif codec == Codec.picture:
        pixels = _picture(bytes(content), dtype, shape)
    elif codec in (Codec.npy, Codec.npy_channels_last):
        pixels = _npy(bytes(content))
        pixels = np.moveaxis(pixels, -1, 0) if codec == Codec.npy_channels_last else pixels
        pixels = pixels[None] if pixels.ndim == len(shape) - 1 else pixels
    elif codec == Codec.npy_gzip:
        pixels = _npy(_unzipped(content, math.prod(shape) * np.dtype(dtype).itemsize + _NPY_HEADER_BYTES))
    else:
        raise DataError(f"unknown codec {codec}")
    if pixels.shape != shape or pixels.dtype.newbyteorder("<") != np.dtype(dtype):
        raise DataError(f"an image of {pixels.shape} {pixels.dtype.str}, the index says {shape} {dtype}")
    return np.ascontiguousarray(pixels, dtype)


@dataclass(frozen=True)
class _NpyHeader:
    start: int
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]


def _npy_header(content: bytes) -> _NpyHeader:
    """The header of an ``.npy`` file of any version (NEP 1), read without evaluating anything."""
    if content[:6] != _NPY_MAGIC or len(content) < 12 or content[6] not in (1, 2, 3):
        raise DataError("not an .npy file")
    form, begin = ("<H", 10) if content[6] == 1 else ("<I", 12)
    (length,) = struct.unpack_from(form, content, 8)
    if length > _NPY_HEADER_BYTES or begin + length > len(content):
        raise DataError(f"an .npy header of {length} bytes")
    try:
        fields = ast.literal_eval(content[begin : begin + length].decode("utf-8").strip())
        descr, fortran_order, shape = fields["descr"], fields["fortran_order"], tuple(fields["shape"])
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise DataError("not a readable .npy header") from None
    if dtype is not None and dtype.kind == "b":
        dtype = np.dtype("u1")
    if dtype is None or dtype.kind not in "uif" or dtype.itemsize > 8:
        raise DataError(f"an array of dtype {descr}, expected integers or floats")
    if not 2 <= len(shape) <= MAX_AXES or not all(type(size) is int and size > 0 for size in shape):
        raise DataError(f"an array of shape {shape}, expected 2 to {MAX_AXES} axes, none of them empty")
    _check_size(shape, dtype)
    found, expected = len(content) - begin - length, math.prod(shape) * dtype.itemsize
    if found != expected:
        raise DataError(f"an .npy file with {found} bytes of pixels, its header says {expected}")
    return _NpyHeader(begin + length, dtype, bool(fortran_order), shape)


def _npy(content: bytes) -> np.ndarray:
    header = _npy_header(content)
    flat = np.frombuffer(content, header.dtype, offset=header.start)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def _unzipped(content: bytes | memoryview, most: int) -> bytes:
    """What was gzipped; no more than ``most`` bytes of it are ever made."""
    stream = isal_zlib.decompressobj(_GZIP)
    try:
        found: bytes = stream.decompress(content, most)
    except Exception as error:  # the stubs of isal give its error no type
        raise DataError(f"not a readable gzip file: {error}") from None
    if not stream.eof or stream.unused_data:
        raise DataError(f"a gzip file that is cut off, has something behind its end, or holds more than {most} bytes")
    return found


def _picture(content: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    stored = examine_picture(content)
    if (stored.dtype, stored.shape) != (dtype, shape):
        raise DataError(f"a picture of {stored.shape} {stored.dtype}, the index says {shape} {dtype}")
    with _opened(content) as picture:
        try:
            picture.load()
            pixels = np.asarray(picture)
        except Exception as error:  # PIL has no common class for what it finds in a damaged file
            raise DataError(f"a damaged picture ({type(error).__name__})") from None
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _opened(content: bytes) -> Any:
    """The picture with its header read; its pixels are decoded later, when its size is known to be acceptable."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(content), formats=_PICTURES)
    except Exception as error:  # as above; a decompression bomb is one of them
        raise DataError(f"not a readable PNG or JPEG file ({type(error).__name__})") from None


def _check_size(shape: tuple[int, ...], dtype: np.dtype) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise DataError(f"an image of {shape} {dtype} would take {size} bytes, at most {MAX_BYTES} are accepted")
