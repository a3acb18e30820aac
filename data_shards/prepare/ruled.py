"""A source whose values are stored as they are, with the rule by which they are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from data_shards.intensity import IntensityRules, Rule, check_values, rule_of
from data_shards.sample import MASK, Image, Sample
from data_shards.sources.base import Source
from data_shards.support.documents import Document
from data_shards.support.errors import DataError

Stored = Literal["uint8", "int8", "uint16", "int16", "float16", "float32"]


class Storing(Document):
    """Options of values that are stored as they are."""

    intensity: IntensityRules = Field(
        {},
        description="how stored values become the range of the network: bytes, percentiles, z-score, names of CT "
        "windows such as [lung,mediastinum], or such a rule for each image name",
    )
    stored: Stored | None = Field(
        None, description="dtype of the shards, which has to hold every value exactly: int16, uint16, float16, ..."
    )


class Ruled(Source):
    """The samples of another source, each checked against the rule of its images.

    Args:
        source: where the samples come from.
        rules: by image name, or :data:`~data_shards.intensity.EVERY`; see :func:`~data_shards.intensity.rule_of`.
        stored: dtype of all images but masks, which has to hold each of their values exactly; None leaves each in its
            own, and the images of a set may differ in it.
    """

    def __init__(self, source: Source, rules: Mapping[str, Rule], stored: Stored | None = None) -> None:
        self._source, self._stored = source, stored
        self.card, self.skipped = source.card, source.skipped
        self.warnings, self.duplicates = source.warnings, source.duplicates
        self.intensity = dict(rules)

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, position: int) -> Sample:
        """The sample at ``position``.

        Raises:
            DataError: the source cannot read it, or an image is not one that its rule is for.
        """
        sample = self._source.sample(position)
        return replace(sample, images={name: self._checked(name, image) for name, image in sample.images.items()})

    def name_of(self, position: int) -> str:
        """What the source calls the item."""
        return self._source.name_of(position)

    def origin(self, position: int) -> dict[str, str]:
        """Where the source has the item from."""
        return self._source.origin(position)

    def _checked(self, name: str, image: Image) -> Image:
        if name == MASK:
            return image
        rule = rule_of(self.intensity, name)
        try:
            finite(image.pixels)
            if self._stored is not None:
                image = replace(image, pixels=exactly(image.pixels, np.dtype(self._stored)))
            if rule is not None:
                check_values(rule, image.pixels)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        return image


def finite(pixels: np.ndarray) -> None:
    """Refuse values that are not finite.

    Raises:
        DataError: says how many.
    """
    if pixels.dtype.kind == "f" and (strange := int(pixels.size - np.isfinite(pixels).sum())):
        raise DataError(f"{strange} of {pixels.size} values are infinite or no numbers")


def exactly(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same values in another dtype.

    Raises:
        DataError: it does not hold them all.
    """
    if pixels.dtype == dtype:
        return pixels
    with np.errstate(invalid="ignore", over="ignore"):
        found = pixels.astype(dtype)
    if not np.array_equal(found, pixels):
        raise DataError(
            f"{pixels.dtype} values from {pixels.min():g} to {pixels.max():g} are not all {dtype} values: read as "
            "those they would be others"
        )
    return found
