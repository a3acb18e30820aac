"""Voxels that were not measured: NaN outside the field of view, the padding of a scanner.

They take the smallest value that was measured, which is air or darkness in most images, and are marked, so that no
statistic, window or threshold takes them for measurements.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from data_shards.sample import Image
from data_shards.sources.images.dtypes import is_finite
from data_shards.support.errors import DataError

NotFinite = Literal["refuse", "background"]

NOTE = "voxels that are not finite count as background: they take the smallest value and no part in statistics"


def set_aside(image: Image, unmeasured: np.ndarray) -> Image:
    """The image with some of its voxels as background, beside those that are so already.

    Args:
        image: any.
        unmeasured: bool ``H,W`` or ``D,H,W``.

    Raises:
        DataError: no voxel is left.
    """
    if not unmeasured.any():
        return image
    measured = ~unmeasured if image.measured is None else image.measured & ~unmeasured
    if not measured.any():
        raise DataError("no voxel was measured")
    pixels = image.pixels.copy()
    pixels[:, ~measured] = image.pixels[:, measured].min()
    return replace(image, pixels=pixels, measured=measured)


def without_infinities(image: Image, what: str, rule: NotFinite) -> Image:
    """The image with finite values only.

    Args:
        image: as it was read.
        what: what it is, for messages.
        rule: ``background`` sets voxels aside in which a channel is NaN or infinite.

    Raises:
        DataError: the rule is ``refuse`` and a value is not finite, or none is.
    """
    if image.pixels.dtype.kind != "f" or is_finite(image.pixels):
        return image
    if rule == "refuse":
        raise DataError(f"{what} holds values that are not finite; not_finite: background takes them for background")
    finite = np.isfinite(image.pixels).all(axis=0)
    if not finite.any():
        raise DataError(f"{what} holds no value that is finite")
    return replace(set_aside(image, ~finite), notes=(*image.notes, NOTE))
