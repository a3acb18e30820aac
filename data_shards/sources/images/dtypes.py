"""From the many dtypes of files to the few that samples have."""

from __future__ import annotations

import numpy as np

from data_shards.support.errors import DataError

_NARROW = {"i": np.dtype(np.int32), "u": np.dtype(np.uint32), "f": np.dtype(np.float32)}


def plain(values: np.ndarray, what: str) -> np.ndarray:
    """The same numbers in a contiguous array of native byte order, of at most 32 bits.

    Booleans become uint8. Integers of 64 bits become integers of 32 bits, exactly. Floats of 16 and 64 bits become
    float32, which keeps 24 significant bits: more than any scanner measures. NaN and infinity stay.

    Args:
        values: what was read.
        what: what it is, for messages.

    Raises:
        DataError: the dtype is not one of numbers, an integer does not fit in 32 bits, or a value becomes infinite.
    """
    dtype = values.dtype.newbyteorder("=")
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    elif dtype.kind not in "iuf":
        raise DataError(f"{what} holds values of dtype kind {dtype.kind!r}; integers or floats are expected")
    elif dtype.itemsize > 4 or dtype == np.float16:
        narrow = _NARROW[dtype.kind]
        if dtype.kind != "f" and not _fits(values, narrow):
            raise DataError(f"{what} holds integers of {8 * dtype.itemsize} bits that do not fit in 32")
        dtype = narrow
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.ascontiguousarray(values, dtype)
    if dtype.kind == "f" and dtype != values.dtype:
        refuse_overflow(values, result, what)
    return result


def refuse_overflow(before: np.ndarray, after: np.ndarray, what: str) -> None:
    """Refuse values that were finite and are not so any more.

    Raises:
        DataError: one is.
    """
    if not is_finite(after) and np.any(np.isfinite(before) & ~np.isfinite(after)):
        raise DataError(f"{what} holds values that are not finite in {after.dtype}")


def is_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; takes no memory in proportion to the array."""
    # NaN passes through min and max, so looking at the two extremes is enough.
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def _fits(values: np.ndarray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return int(values.min()) >= limits.min and int(values.max()) <= limits.max
