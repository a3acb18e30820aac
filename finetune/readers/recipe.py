"""How images were read and prepared, so that new ones go through the same, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, JsonValue

from data_shards.intensity import BYTES, Bytes, IntensityRule, Rule, check_values
from data_shards.prepare.document import Intensity, Preparation
from data_shards.prepare.prepared import prepare
from data_shards.sample import MASK, Image
from data_shards.sources.images.channels import Channels, with_channels
from data_shards.support.documents import Document, parse
from data_shards.support.errors import DataError
from finetune.images import Origin, Study

ONLY = "image"
"""What the image of a study is called where nothing names it."""

PERCENTILES = Intensity(percentile=(0.5, 99.5))
"""Brings values deeper than 8 bits to 8, unless the user says it; of the voxels of each image that were measured."""

Depth = Literal["8 bits", "measured", "any"]
"""Pictures of 8 bits, as they are; values that were measured, brought to 8 bits; or all by one rule of the user."""

Known = Literal["all", "some", "none"]


class ImageRecipe(Document):
    """What the images of one name were like."""

    channels: int = Field(ge=1, description="of every image")
    dimensionality: Literal["planar", "volumetric"] = Field(description="planes or volumes")
    intensity: Intensity = Field(Intensity(), description="how values became 8 bits; neither: they were as they are")
    rule: IntensityRule = Field(BYTES, description="how values as they were kept become the range of the network")
    depth: Depth = Field("8 bits", description="which kind of values was read")
    size: tuple[int, ...] | None = Field(None, description="of every image after preparation, H,W or D,H,W, if common")
    spacing: Known = Field("none", description="of how many images the distance of voxels was known")


class Recipe(Document):
    """Everything that decides which pixels a file becomes."""

    data: Literal["files", "shards", "archive", "array"] = Field(description="what the images were read from")
    images: dict[str, ImageRecipe] = Field(min_length=1, description="by the name that an image has in its study")
    preparation: Preparation = Field(Preparation(), description="what was done to every study")
    options: dict[str, JsonValue] = Field({}, description="options of the source images that differ from the default")
    channels: Channels = Field("auto", description="the option of that name")
    organ: str = Field("unknown", description="body part, unless a table says it")
    modality: str = Field("unknown", description="how images were made, unless a table or a header says it")
    task: str = Field("unknown", description="how labels were read")
    classes: dict[int, str] = Field({}, description="name of each class, label or number")
    labels: tuple[str, ...] = Field((), description="label columns of the table; folder for the names of folders")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Recipe:
        """Read back what ``model_dump(mode="json")`` gave.

        Raises:
            ConfigError: it is no recipe.
        """
        return parse(cls, dict(content), "recipe")

    @property
    def intensities(self) -> dict[str, Intensity]:
        """The rule of each image name."""
        return {name: image.intensity for name, image in self.images.items()}

    @property
    def rules(self) -> dict[str, Rule]:
        """The rule of each image name whose values are not kept as 8 bits."""
        return {name: image.rule for name, image in self.images.items() if image.rule != BYTES}

    def brought(self, study: Study, depths: Mapping[str, bool | None] | None = None) -> Study:
        """A study as it was read, brought to what the classifier learned from.

        Args:
            study: images in their native dtype; a mask is left out.
            depths: by image name, whether its values are those of a screen; None or missing: by the dtype.

        Raises:
            DataError: it does not fit; says in what.
        """
        images, depths, paths = dict(study.images), dict(depths or {}), dict(study.paths)
        images.pop(MASK, None)
        if len(self.images) == len(images) == 1:
            (name,), (other,) = self.images, images
            if ONLY in (name, other):  # nothing named it, and there is only one it can be
                images, depths = {name: images[other]}, {name: depths.get(other)}
                paths = {name: paths[other]} if other in paths else {}
        strange = [name for name in images if name not in self.images]
        if strange:
            raise DataError(
                f"{len(strange)} of its {len(images)} images have a name that was never seen; known are "
                f"{', '.join(self.images)}"
            )
        if not images:
            raise DataError(f"has none of the images {', '.join(self.images)}")
        for name, image in images.items():
            self._check_read(name, image, depths.get(name))
        # On a grid of indices, so that what is done to it says where each voxel comes from.
        placed = {name: replace(image, affine=np.eye(image.pixels.ndim)) for name, image in images.items()}
        done = prepare(placed, self.preparation, {name: self.images[name].intensity for name in images})
        origins = {name: _origin(images[name], image, paths.get(name)) for name, image in done.items()}
        done = {name: replace(image, affine=_affine(origins[name])) for name, image in done.items()}
        done = {name: self._prepared(name, image) for name, image in done.items()}
        return replace(study, images=done, origins=origins, rules=self.rules)

    def brought_array(self, images: np.ndarray, spacing_mm: np.ndarray | None = None) -> list[Study]:
        """Images ``(N, C, ...)`` of an array, brought one by one; a message gives the position of the image.

        Raises:
            DataError: one does not fit.
        """
        found = []
        for position, pixels in enumerate(images):
            spacing: tuple[float, ...] = ()
            if spacing_mm is not None:
                row = np.broadcast_to(spacing_mm, (len(images), pixels.ndim - 1))[position]
                spacing = tuple(row.tolist()) if np.isfinite(row).all() else ()
            try:
                found.append(self.brought(Study({ONLY: Image(pixels, spacing_mm=spacing)})))
            except DataError as error:
                raise DataError(f"image {position}: {error}") from None
        return found

    def _check_read(self, name: str, image: Image, has_8_bits: bool | None) -> None:
        expected, what = self.images[name], _what(name)
        if image.dimensionality.name != expected.dimensionality:
            raise DataError(f"{what}is {image.dimensionality.name}; those learned from are {expected.dimensionality}")
        if expected.spacing == "all" and not knows_spacing(image):
            raise DataError(f"{what}does not say the distance of its voxels; all images learned from do")
        is_8_bits = image.pixels.dtype == np.uint8 if has_8_bits is None else has_8_bits
        if expected.depth == "8 bits" and not (is_8_bits and image.pixels.dtype == np.uint8):
            raise DataError(
                f"{what}holds measured values ({image.pixels.dtype}); those learned from have the 8 bits of pictures, "
                "which were taken as they are"
            )
        if expected.depth == "measured" and is_8_bits:
            raise DataError(f"{what}has the 8 bits of a picture; those learned from hold measured values")

    def _prepared(self, name: str, image: Image) -> Image:
        expected, what = self.images[name], _what(name)
        try:
            pixels = with_channels(image.pixels, expected.channels, lossless=self.channels not in (1, 3))
        except DataError:
            raise DataError(
                f"{what}{_channels(len(image.pixels))}; those learned from have {expected.channels}"
            ) from None
        if not isinstance(expected.rule, Bytes):
            try:
                check_values(expected.rule, pixels)
            except DataError as error:
                raise DataError(f"{what}{error}") from None
        if expected.size is not None and pixels.shape[1:] != expected.size:
            raise DataError(
                f"{what}has {by(pixels.shape[1:])} voxels; all images learned from have {by(expected.size)} "
                "(a size given when the classifier is made brings all images to it)"
            )
        return replace(image, pixels=pixels, measured=None, notes=())


def _origin(before: Image, after: Image, path: Path | None) -> Origin:
    assert after.affine is not None
    return Origin(before.pixels.shape[1:], after.affine, before.affine, path)


def _affine(origin: Origin) -> np.ndarray | None:
    return None if origin.affine is None else origin.affine @ origin.change


def knows_spacing(image: Image) -> bool:
    """Whether the distance of voxels is known along every axis."""
    return bool(image.spacing_mm) and bool(np.isfinite(image.spacing_mm).all())


def by(shape: tuple[int, ...]) -> str:
    """``3 x 480 x 640``."""
    return " x ".join(map(str, shape))


def _what(name: str) -> str:
    return "" if name == ONLY else f"{name} "


def _channels(count: int) -> str:
    return "has 3 channels of different colours" if count == 3 else f"has {count} channel{'s' * (count > 1)}"
