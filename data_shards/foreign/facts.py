"""What stands beside the images of a foreign sample, decoded as webdataset decodes it, and nothing that runs code."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from webdataset.autodecode import decoders

from data_shards.support.errors import DataError

# Members that are pickled Python: reading one runs whatever its author wanted.
PICKLED = ("pyd", "pickle", "pkl", "pth", "pt")
PICKLED_REFUSED = (
    "is pickled Python, and reading it would run whatever program its author put there; store numbers as cls, json or "
    "npy, images as npy, png or jpg"
)
# Whole numbers by a name that webdataset knows; where it is not one (0.5, [0, 1]) the member is read as JSON.
_NUMBERS = ("cls", "cls2", "index", "inx", "id")
# Texts; one that is a JSON number counts as the number.
_TEXTS = ("txt", "text", "transcript")
# Arrays and packed values. Their decoders inflate nothing, so what comes out is bounded by what goes in; members that
# would be inflated (npz, gz) are none of them.
_PACKED = ("npy", "ten", "tb", "mp", "msg", "cbor")


def fact(suffix: str, content: bytes) -> Any:
    """The value of a member: a number, a text, a list or a mapping of such.

    Args:
        suffix: of its name, in lower case.
        content: the member.

    Raises:
        DataError: it is pickled, or not what its suffix says; the message has no word of the content.
    """
    kind = suffix.rpartition(".")[2]
    if kind in PICKLED:
        raise DataError(PICKLED_REFUSED)
    if kind in _PACKED:
        return _packed(kind, content)
    if kind in _NUMBERS:
        try:
            return decoders[kind](content)
        except ValueError:
            return _json(content)
    if kind in _TEXTS:
        try:
            text = decoders[kind](content)
        except ValueError:
            raise DataError("is not text in UTF-8") from None
        try:
            number = _json(content)
        except DataError:
            return text.strip()
        return number if isinstance(number, int | float) else text.strip()
    return _json(content)


def _json(content: bytes) -> Any:
    """Webdataset's own decoder would take NaN and Infinity."""
    try:
        return json.loads(content.decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise DataError("is neither a finite number nor JSON") from None


def _packed(kind: str, content: bytes) -> Any:
    try:
        value = decoders[kind](content)
    except ImportError as error:
        raise DataError(f"needs the package {error.name}, which is not installed") from None
    except Exception as error:  # each format has its own errors
        raise DataError(f"cannot be decoded as {kind} ({type(error).__name__})") from None
    return _plain(value)


def _plain(value: Any) -> Any:
    """Arrays as lists, one array alone without its list; numbers that are not finite are refused."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biufU":
            raise DataError(f"holds an array of {value.dtype}, expected numbers")
        value = value.tolist()
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 and isinstance(items[0], list) else items
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError("holds a number that is not finite")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
