"""The first reading of all images: what they have in common, and that nothing among them is damaged or out of place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from data_shards.intensity import BYTES, Rule
from data_shards.prepare.document import Intensity
from data_shards.sample import Image
from data_shards.sources.images.channels import Channels, common_channels, with_channels, words
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ
from finetune.images import Pictures, Study
from finetune.readers.recipe import Depth, ImageRecipe, Known, knows_spacing

Progress = Callable[[int, int], None]
"""Is told how many studies are read, and of how many."""


@dataclass
class _Found:
    """What is known of the images of one name, in the order of the studies that have one."""

    where: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    dimensionality: list[str] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    spacing: list[bool] = field(default_factory=list)


class Survey:
    """What all studies have in common.

    Attributes:
        modalities: of the images.
        organs: of the studies.
        lost: positions of the studies that could not be read, with the reason; only where that is allowed.

    Args:
        names: how messages call the studies.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.modalities: set[Modality] = set()
        self.organs: set[Organ] = set()
        self.lost: dict[int, str] = {}
        self._found: dict[str, _Found] = {}

    @classmethod
    def of(
        cls, pictures: Pictures, names: Sequence[str], *, skip: bool = False, progress: Progress | None = None
    ) -> Survey:
        """Read every study once; what is prepared then is kept by the pictures and not decoded again.

        Args:
            pictures: all studies.
            names: how messages call them.
            skip: leave out what cannot be read.
            progress: is told how far it is.

        Raises:
            DataError: one cannot be read.
        """
        survey = cls(names)
        for position in range(len(pictures)):
            try:
                survey.add(position, pictures.study(position))
            except DataError as error:
                if not skip:
                    raise
                survey.lost[position] = str(error)
            if progress is not None:
                progress(position + 1, len(pictures))
        return survey

    def add(self, position: int, study: Study) -> None:
        """Take one study in."""
        self.organs.add(study.organ)
        for name, image in study.images.items():
            found = self._found.setdefault(name, _Found())
            self.modalities.add(image.modality)
            found.where.append(position)
            found.channels.append(len(image.pixels))
            found.dimensionality.append(image.dimensionality.name)
            found.sizes.append(image.pixels.shape[1:])
            found.spacing.append(knows_spacing(image))

    def organ(self, other: Organ) -> Organ:
        """The only one of all studies, or the other."""
        return next(iter(self.organs)) if len(self.organs) == 1 else other

    def modality(self, other: Modality) -> Modality:
        """The only one of all images, or the other."""
        return next(iter(self.modalities)) if len(self.modalities) == 1 else other

    def differ(self, channels: Mapping[str, int]) -> bool:
        """Whether some images do not have the number of channels of their name."""
        return any(set(found.channels) != {channels[name]} for name, found in self._found.items())

    def channels(self, rule: Channels, pictures: Pictures) -> dict[str, int]:
        """The number of channels of the images of each name.

        Args:
            rule: ``auto`` brings grey and colour to what most images have, where that loses nothing.
            pictures: of which colours are looked at, where grey images are the most.

        Raises:
            DataError: images have different numbers, or have colours that would be lost; names one.
        """
        result = {}
        for name, found in self._found.items():
            common = common_channels(found.channels) if rule == "auto" else None
            if common is None and len(set(found.channels)) > 1:
                other = next(at for at, count in enumerate(found.channels) if count != found.channels[0])
                raise DataError(
                    f"images have different numbers of channels ({words(found.channels)}): {self._name(found, 0)} has "
                    f"{found.channels[0]}, {self._name(found, other)} {found.channels[other]}"
                )
            result[name] = found.channels[0] if common is None else common
            for at, count in enumerate(found.channels):
                if count != result[name]:
                    self._check_lossless(name, found, at, result[name], pictures)
        return result

    def recipes(
        self,
        channels: Mapping[str, int],
        intensities: Mapping[str, Intensity],
        depths: Mapping[str, Depth],
        rules: Mapping[str, Rule] | None = None,
    ) -> dict[str, ImageRecipe]:
        """What the images of each name have in common.

        Args:
            channels: of each name.
            intensities: how values of each became 8 bits.
            depths: which kind of values each has.
            rules: how the values of those that kept theirs become the range of the network.

        Raises:
            DataError: there are planes and volumes of one name; names one of each.
        """
        result = {}
        for name, found in sorted(self._found.items()):
            if len(set(found.dimensionality)) > 1:
                other = next(at for at, kind in enumerate(found.dimensionality) if kind != found.dimensionality[0])
                raise DataError(
                    f"planes and volumes are mixed: {self._name(found, 0)} is {found.dimensionality[0]}, "
                    f"{self._name(found, other)} is {found.dimensionality[other]}"
                )
            result[name] = ImageRecipe(
                channels=channels[name],
                dimensionality=found.dimensionality[0],
                intensity=intensities[name],
                rule=(rules or {}).get(name, BYTES),
                depth=depths[name],
                size=found.sizes[0] if len(set(found.sizes)) == 1 else None,
                spacing=_known(found.spacing),
            )
        return result

    def _check_lossless(self, name: str, found: _Found, at: int, count: int, pictures: Pictures) -> None:
        try:
            with_channels(pictures.study(found.where[at]).images[name].pixels, count, lossless=True)
        except DataError as error:
            raise DataError(f"{self._name(found, at)} {error} ({words(found.channels)})") from None

    def _name(self, found: _Found, at: int) -> str:
        return self._names[found.where[at]]


class Channelled(Pictures):
    """Studies whose images have the number of channels of their name.

    Args:
        pictures: the studies.
        channels: by image name; grey is repeated, equal channels become one.
    """

    def __init__(self, pictures: Pictures, channels: Mapping[str, int]) -> None:
        super().__init__()
        self._pictures, self._channels = pictures, dict(channels)

    def __len__(self) -> int:
        return len(self._pictures)

    def study(self, position: int) -> Study:
        """The study at ``position``."""
        study = self._pictures.study(position)
        images = {name: self._brought(image, self._channels[name]) for name, image in study.images.items()}
        return replace(study, images=images)

    @staticmethod
    def _brought(image: Image, count: int) -> Image:
        if len(image.pixels) == count:
            return image
        return replace(image, pixels=with_channels(image.pixels, count, lossless=True))


def _known(spacing: Sequence[bool]) -> Known:
    return "all" if all(spacing) else "some" if any(spacing) else "none"
