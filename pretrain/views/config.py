"""How strongly views are augmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_shards.support.documents import Document

Probability = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=1, le=8)]


class ViewConfig(Document):
    """Parameters of the augmentation; every one set to zero (``crop_scale_min`` to one) leaves the image as it is.

    Attributes:
        crop_scale_min: smallest area of the random resized crop, as a fraction of the image. Of a volume the area
            within the slices; its depth is cropped to the same share of its length as their sides.
        crop_scale_max: its largest area.
        crop_aspect: the crop's aspect ratio is drawn log-uniformly from ``1 / crop_aspect`` to ``crop_aspect``.
        rotation_deg: largest rotation either way, of a volume within its slices.
        tilt_deg: largest tilt of a volume either way, about each of the two axes of its slices.
        translation: largest shift either way, as a fraction of the side, on top of the crop's place.
        flip_horizontal: probability of mirroring left and right.
        flip_vertical: probability of mirroring top and bottom.
        flip_depth: probability of mirroring the first and the last slice of a volume.
        intensity: probability of changing brightness, contrast and gamma.
        brightness: largest shift, as a fraction of the full range.
        contrast: the contrast factor is drawn from ``1 - contrast`` to ``1 + contrast``.
        gamma: the exponent is drawn log-uniformly from ``1 / (1 + gamma)`` to ``1 + gamma``.
        colour: largest relative gain or loss of each channel of a colour image.
        blur: probability of a Gaussian blur.
        blur_sigma_px: largest standard deviation, in pixels or voxels along every axis; the smallest is 0.1.
        noise: largest standard deviation of Gaussian noise, as a fraction of the full range.
        padding: what lies outside the image: ``border`` repeats the edge, ``reflection`` mirrors.
        coarser: how many times as long as those of the image the pixels or voxels of the first and of the second view
            are. A coarser view is the average over its larger pixels, has fewer of them, and the network is told their
            spacing where that of the image is known.
        slices: whether the first and the second view of a volume is one slice of it, a plane, from the middle half of
            its depth (after rotation, tilt and crop). With one of each, a network that is given volumes alone is asked
            to read planes too.
    """

    crop_scale_min: Annotated[float, Field(gt=0, le=1)] = 0.4
    crop_scale_max: Annotated[float, Field(gt=0, le=1)] = 1.0
    crop_aspect: Annotated[float, Field(ge=1, le=4)] = 1.25
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    tilt_deg: Annotated[float, Field(ge=0, le=180)] = 10.0
    translation: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    flip_horizontal: Probability = 0.5
    flip_vertical: Probability = 0.0
    flip_depth: Probability = 0.0
    intensity: Probability = 0.8
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.2
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.4
    gamma: Annotated[float, Field(ge=0, le=4)] = 0.3
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.1
    blur: Probability = 0.3
    blur_sigma_px: Annotated[float, Field(ge=0.1, le=8)] = 1.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.05
    padding: Literal["border", "reflection"] = "reflection"
    coarser: tuple[Factor, Factor] = (1.0, 1.0)
    slices: tuple[bool, bool] = (False, False)

    @model_validator(mode="after")
    def _ordered(self) -> ViewConfig:
        if self.crop_scale_min > self.crop_scale_max:
            raise ValueError(f"crop_scale_min {self.crop_scale_min} is above crop_scale_max {self.crop_scale_max}")
        return self

    def is_identity(self, axes: int) -> bool:
        """Whether an image of 2 or 3 spatial axes is only made coarser, or a volume is cut.

        Of planes whatever is said of volumes.
        """
        planar = {"tilt_deg": 0.0, "flip_depth": 0.0} if axes == 2 else {}
        return self.model_copy(update={**planar, "coarser": IDENTITY.coarser, "slices": IDENTITY.slices}) == IDENTITY


IDENTITY = ViewConfig(
    crop_scale_min=1.0,
    crop_aspect=1.0,
    rotation_deg=0.0,
    tilt_deg=0.0,
    flip_horizontal=0.0,
    intensity=0.0,
    colour=0.0,
    blur=0.0,
    noise=0.0,
)
"""No augmentation at all."""
