"""Values as a screen would show them: lookup table or window of the header (PS3.3 section C.11.2), 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_shards.sources.images.dicom.frames import Frame
from data_shards.sources.images.dicom.tables import Table, lookup_table
from data_shards.support.errors import DataError

_WHITE = 255.0


@dataclass(frozen=True)
class Window:
    """The first window of a frame.

    Attributes:
        center: value shown in middle grey.
        width: distance from black to white.
        function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    center: float
    width: float
    function: str

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Grey from 0 to 1, as float64, by equations C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2."""
        real = values.astype(np.float64)
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (real - self.center) / self.width, -700, 700)))
        if self.function == "LINEAR":
            center, width = self.center - 0.5, self.width - 1
        else:
            center, width = self.center, self.width
        if width == 0:  # black up to the threshold, white above
            return (real > center).astype(np.float64)
        return np.clip((real - center) / width + 0.5, 0, 1)


def window_of(frame: Frame) -> Table | Window | None:
    """The VOI lookup table of the frame's file or, without it, the first window of the frame.

    Raises:
        DataError: the function is unknown, or the width is too small for it.
    """
    table = lookup_table(frame.dataset, "VOILUTSequence")
    centers, widths = frame.numbers("WindowCenter"), frame.numbers("WindowWidth")
    if table is not None or centers is None or widths is None:
        return table
    named = frame.value("VOILUTFunction")
    function = str(named).strip().upper() if named else "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DataError("VOILUTFunction is none of LINEAR, LINEAR_EXACT and SIGMOID")
    if widths[0] < 1 if function == "LINEAR" else widths[0] <= 0:
        raise DataError(f"a window width of {widths[0]:g} is too small for {function}")
    return Window(centers[0], widths[0], function)


def shown(values: np.ndarray, window: Table | Window | None) -> np.ndarray:
    """Real values ``D,H,W`` as uint8, rounded to the nearest grey.

    Without a window the smallest value of the image becomes 0 and the largest 255.
    """
    grey = np.empty(values.shape, np.uint8)
    low, high = float(values.min()), float(values.max())
    for plane, target in zip(values, grey, strict=True):
        if isinstance(window, Table):
            share = window(plane) / ((1 << window.bits) - 1)
        elif window is not None:
            share = window(plane)
        else:
            share = (plane.astype(np.float64) - low) / ((high - low) or 1.0)
        target[...] = np.rint(share * _WHITE)
    return grey


def shown_colour(values: np.ndarray, bits: int) -> np.ndarray:
    """Colours of so many bits as uint8."""
    if bits == 8 and values.dtype == np.uint8:
        return values
    return np.rint(values / ((1 << bits) - 1) * _WHITE).astype(np.uint8)
