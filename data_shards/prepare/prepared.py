"""A source whose samples are prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from data_shards.card import DatasetCard
from data_shards.prepare.crop import cut, cut_or_pad, foreground_box
from data_shards.prepare.document import Intensity, Preparation
from data_shards.prepare.grid import grids, with_mask_aligned
from data_shards.prepare.intensity import Ends, ends_of, to_8_bits
from data_shards.prepare.resample import to_shape, to_spacing
from data_shards.sample import MASK, Image, Sample
from data_shards.sources.base import Source
from data_shards.support.errors import DataError

# Sums are made in float64, whose largest number is 1.8e308.
_LARGEST = 1e307


class Prepared(Source):
    """The samples of another source, resampled, cut and scaled.

    Keys, subjects, splits, labels and the order stay; the card says what was done and is no longer official. Images are
    prepared where they are read, so in the processes of the writer.

    Args:
        source: where the samples come from.
        preparation: what is done to them.
    """

    def __init__(self, source: Source, preparation: Preparation) -> None:
        self._source, self._preparation = source, preparation
        self.skipped, self.warnings, self.duplicates = source.skipped, source.warnings, source.duplicates
        self.intensity = source.intensity
        self.card = _prepared_card(source.card, preparation.words)

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, position: int) -> Sample:
        """The sample at ``position``, prepared.

        Raises:
            DataError: the source cannot read it, or it cannot be prepared.
        """
        sample = self._source.sample(position)
        try:
            return replace(sample, images=prepare(sample.images, self._preparation))
        except DataError as error:
            raise DataError(f"{self.name_of(position)}: {error}") from None

    def name_of(self, position: int) -> str:
        """What the source calls the item."""
        return self._source.name_of(position)

    def origin(self, position: int) -> dict[str, str]:
        """Where the source has the item from."""
        return self._source.origin(position)


def prepare(
    images: dict[str, Image], preparation: Preparation, intensities: Mapping[str, Intensity] | None = None
) -> dict[str, Image]:
    """The images of one study, prepared in the order of the options.

    Images that lie on one grid are cut to one box, which holds the foreground of each of them; the mask is cut with
    the images of its grid and its values stay class ids. Percentiles are those of the image before it is brought to
    its size, so that they do not depend on how much of the result is padding.

    Args:
        images: by name.
        preparation: what is done to them.
        intensities: by image name, in place of the intensity of the preparation.

    Raises:
        DataError: an image cannot be prepared; the message names it.
    """
    images = with_mask_aligned(images)
    images = _each(images, lambda _, image: _finite(image))
    if (spacing_mm := preparation.spacing_mm) is not None:
        images = _each(images, lambda name, image: to_spacing(image, spacing_mm, nearest=name == MASK))
    if preparation.crop == "foreground":
        for group in grids(images):
            box = foreground_box(
                [images[name] for name in group if name != MASK], preparation.threshold, preparation.margin
            )
            images = images | {name: cut(images[name], box) for name in group}
    shown = {name: image for name, image in images.items() if name != MASK}
    rules = dict.fromkeys(shown, preparation.intensity) | dict(intensities or {})
    ends = {name: ends_of(image.values, rules[name]) for name, image in shown.items()}
    if (size := preparation.size) is not None:
        if preparation.fit == "resize":
            images = _each(images, lambda name, image: to_shape(image, size, nearest=name == MASK))
        else:
            images = _each(images, lambda name, image: cut_or_pad(image, size, mask=name == MASK))
    return _each(images, lambda name, image: _scaled(image, ends.get(name)))


def _each(images: dict[str, Image], step: Callable[[str, Image], Image]) -> dict[str, Image]:
    """One step for every image; errors name the image."""
    done = {}
    for name, image in images.items():
        try:
            done[name] = step(name, image)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    return done


def _finite(image: Image) -> Image:
    """Refuse what the writer would refuse before sums and 8 bits hide it, and values whose sums are not finite."""
    ends = (float(image.pixels.min()), float(image.pixels.max()))  # a NaN anywhere is both
    if not all(abs(end) <= _LARGEST for end in ends):
        raise DataError(f"holds values that are not finite, or beyond {_LARGEST:.0e}")
    return image


def _scaled(image: Image, ends: Ends | None) -> Image:
    return image if ends is None else replace(image, pixels=to_8_bits(image.pixels, ends))


def _prepared_card(card: DatasetCard, words: str) -> DatasetCard:
    if not words:
        return card
    note = "; ".join(filter(None, [card.note, f"prepared: {words}"]))
    return card.model_copy(update={"note": note, "official": False})
