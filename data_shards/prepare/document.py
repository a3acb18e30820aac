"""The options of preparing."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from data_shards.support.documents import Document

Millimetres = Annotated[float, Field(gt=0, le=1e4)]
Voxels = Annotated[int, Field(ge=1, le=1 << 16)]


class Intensity(Document):
    """How values become 8 bits, 0 to 255; what lies outside takes the value of the end. One of the two, or none.

    The window that a DICOM header asks for is no option here: only the source knows it.
    """

    window: tuple[float, float] | None = Field(None, description="[center, width] in the units of the image")
    percentile: tuple[float, float] | None = Field(
        None, description="[low, high] in percent of the voxels of each image, such as [0.5,99.5]"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Intensity:
        if self.window is not None and self.percentile is not None:
            raise ValueError("window and percentile are two ways to do one thing; give one of them")
        if self.window is not None and not (math.isfinite(self.window[0]) and 0 < self.window[1] < math.inf):
            raise ValueError("a window has a finite center and a width above 0")
        if self.percentile is not None and not 0 <= self.percentile[0] < self.percentile[1] <= 100:
            raise ValueError("percentiles rise within 0 and 100")
        return self

    @property
    def words(self) -> str:
        """For the dataset card; empty when values stay as they are."""
        if self.window is not None:
            return f"8 bits from a window of width {self.window[1]:g} around {self.window[0]:g}"
        if self.percentile is not None:
            return f"8 bits between the percentiles {self.percentile[0]:g} and {self.percentile[1]:g}"
        return ""


class Preparation(Document):
    """What is done to every sample, in the order of the options."""

    spacing_mm: Millimetres | tuple[Millimetres, ...] | None = Field(
        None, description="resample to this distance of voxels: one number, or one for each axis (D,H,W or H,W)"
    )
    crop: Literal["none", "foreground"] = Field(
        "none", description="foreground: cut to the box around the voxels above the threshold"
    )
    threshold: FiniteFloat | Literal["mean"] = Field(
        "mean", description="what is foreground: values above this number, or above the mean of each image"
    )
    margin: int = Field(4, ge=0, description="voxels that are kept around the foreground")
    size: Voxels | tuple[Voxels, ...] | None = Field(
        None, description="bring to this shape: one number, or one for each axis (D,H,W or H,W)"
    )
    fit: Literal["crop", "resize"] = Field(
        "crop",
        description="how to reach the size: cut and pad around the centre, or resample the whole field of view",
    )
    intensity: Intensity = Field(Intensity(), description="to 8 bits")

    @property
    def words(self) -> str:
        """For the dataset card: what is done, step by step; empty when nothing is."""
        steps = []
        if self.spacing_mm is not None:
            steps.append(f"resampled to {_listed(self.spacing_mm)} mm")
        if self.crop == "foreground":
            threshold = "the mean" if self.threshold == "mean" else f"{self.threshold:g}"
            steps.append(f"cut to the foreground above {threshold} with a margin of {self.margin} voxels")
        if self.size is not None:
            verb = "cropped or padded" if self.fit == "crop" else "resized"
            each = "" if isinstance(self.size, tuple) else " along each axis"
            steps.append(f"{verb} to {_listed(self.size)} voxels{each}")
        return ", ".join([*steps, self.intensity.words] if self.intensity.words else steps)


def _listed(value: float | tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in (value if isinstance(value, tuple) else (value,)))
