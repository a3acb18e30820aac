"""Single arrays in NumPy's npy format (NEP 1), read without pickle."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.background import NotFinite, without_infinities
from data_shards.sources.images.dtypes import plain
from data_shards.sources.images.nifti import TRAILING
from data_shards.sources.images.quiet import silent_libraries
from data_shards.support.errors import DataError
from data_shards.support.limits import BoundedReader, check_size, open_regular
from data_shards.vocabulary import Modality

Axes = Literal["HWC", "CHW", "DHW", "CDHW", "DHWC"]

_WHAT = "the array"


def read_array(
    path: Path,
    *,
    axes: Axes | None = None,
    modality: Modality = Modality.unknown,
    not_finite: NotFinite = "refuse",
) -> Image:
    """The image in one ``.npy`` file; its spacing is unknown.

    An array of two axes is ``H,W``. With more, only the user knows which of them are channels or slices: a guess from
    their lengths would go wrong unnoticed.

    Args:
        path: the file.
        axes: what the axes of an array with three or four of them are.
        modality: how the image was made.
        not_finite: what is done with NaN and infinity, see :mod:`~data_shards.sources.images.background`.

    Raises:
        DataError: the file is damaged, holds no numbers, is too large, or ``axes`` does not say what its axes are.
    """
    with open_regular(path) as file:
        shape, fortran, dtype = _header(file)
        letters = _letters(shape, axes)
        count = check_size(shape, dtype, _WHAT)
        stored = os.fstat(file.fileno()).st_size - file.tell()
        if stored < count:
            raise DataError(f"{_WHAT} is cut short: its header describes {count} bytes of values, it holds {stored}")
        notes = (TRAILING,) if stored > count else ()
        values = BoundedReader(file, _WHAT).read_array(math.prod(shape), dtype)
    array = values.reshape(shape, order="F" if fortran else "C")
    order = [letters.index(letter) for letter in "CDHW" if letter in letters]
    pixels = array.transpose(order)
    image = Image(plain(pixels if "C" in letters else pixels[None], _WHAT), modality, notes=notes)
    return without_infinities(image, _WHAT, not_finite)


def array_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype, from the header alone.

    Raises:
        DataError: the file has no readable one.
    """
    with open_regular(path) as file:
        shape, _, dtype = _header(file)
    return shape, dtype


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis is the fastest, and dtype; the file then stands at the values."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with silent_libraries():  # warnings quote the header
            shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the header is a Python literal: parsing it fails in many ways
        raise DataError(f"{_WHAT} has no readable npy header ({type(error).__name__})") from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise DataError(f"{_WHAT} holds values of dtype kind {dtype.kind!r}; integers or floats are expected")
    if any(type(size) is not int for size in shape):
        raise DataError(f"{_WHAT} has no readable npy header (its axes are no whole numbers)")
    return shape, fortran, dtype


def _letters(shape: tuple[int, ...], axes: Axes | None) -> str:
    if len(shape) == 2:
        return "HW"
    choices = [letters for letters in get_args(Axes) if len(letters) == len(shape)]
    if not choices:
        raise DataError(f"{_WHAT} has {len(shape)} axes; 2, 3 or 4 are expected")
    if axes not in choices:
        found = f"axes is {axes}" if axes else "axes is not given"
        raise DataError(f"{_WHAT} has {len(shape)} axes and {found}; expected axes: {' or '.join(choices)}")
    return str(axes)
