"""What the images of a fit were like, so that new ones that are not are refused, or brought to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from data_shards.intensity import BYTES, Rule
from data_shards.sample import Image
from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.images import Pictures, Study
from finetune.progress import progress
from pretrain.intensity import in_range

_DARK = 2
"""Images whose largest value is below this are black but for noise: values 0 to 1 that were never scaled to 255."""

_MARK = 16
"""Hexadecimal digits of a digest that are kept: among millions of images no two different ones agree in them."""


@dataclass(frozen=True)
class SeenImage:
    """What all images of one name have in common.

    Attributes:
        axes: 2 for planes, 3 for volumes.
        channels: how many.
        spacing: whether the distance of voxels was known for all of them.
        dim_max: the largest value of the darkest image.
        constant: whether one of them had the same value everywhere.
        rule: how values become the range of the network, as JSON types; None for those of 8 bits. Then the largest
            value is that of the range, on a scale to 255.
    """

    axes: int
    channels: int
    spacing: bool
    dim_max: int
    constant: bool
    rule: dict[str, Any] | None = None


@dataclass(frozen=True)
class Seen:
    """What the images of a fit were like, by name.

    Attributes:
        images: of each name.
        always: the names that every case had.
        studies: the start of the SHA-256 of the pixels of each, to know them again.
    """

    images: Mapping[str, SeenImage]
    always: tuple[str, ...]
    studies: frozenset[str]

    @classmethod
    def of(cls, cases: Cases) -> Seen:
        """Look at the images of cases.

        Raises:
            DataError: images of one name have different numbers of axes or channels.
        """
        found: dict[str, SeenImage] = {}
        counts: dict[str, int] = {}
        looks = looks_at(cases)
        for look in looks:
            for name, mine in look.items():
                other = found.setdefault(name, mine)
                if (mine.axes, mine.channels) != (other.axes, other.channels):
                    raise DataError(
                        f"{cases.name}: images of {mine.channels} channels and {mine.axes} axes beside images of "
                        f"{other.channels} channels and {other.axes} axes; bring them to one kind"
                    )
                found[name] = replace(
                    other,
                    spacing=other.spacing and mine.spacing,
                    dim_max=min(other.dim_max, mine.dim_max),
                    constant=other.constant or mine.constant,
                )
                counts[name] = counts.get(name, 0) + 1
        always = tuple(sorted(name for name, count in counts.items() if count == len(looks)))
        return cls(found, always, frozenset(_marks(cases).values()))

    def fitting(self, cases: Cases) -> Cases:
        """The cases with every image checked, and grey ones brought to three channels where those were seen.

        An image that does not fit is found when it is read.
        """
        return replace(cases, images=_Fitting(cases, self), spacing_mm=None, rows=cases.rows)

    def among(self, cases: Cases) -> int:
        """How many of the cases have a study that was seen, by its pixels.

        Raises:
            DataError: an image cannot be read, or does not fit.
        """
        fitting = self.fitting(cases)
        marks = _marks(fitting)
        return sum(any(marks[int(row)] in self.studies for row in fitting.rows_of(case)) for case in range(len(cases)))

    def check(self, look: Mapping[str, SeenImage], name: str) -> bool:
        """Whether a study is as those that were seen just as it is; not where grey has to be brought to colour.

        Args:
            look: at its images.
            name: of it, for the message.

        Raises:
            DataError: says what does not fit.
        """
        known = ", ".join(sorted(self.images))
        for key in sorted(look):
            if key not in self.images:
                raise DataError(f"{name}: an image {key!r}; the classifier knows {known}")
        as_it_is = True
        for key, mine in look.items():
            said = name if key == "image" else f"{name}, {key}"
            as_it_is = self._check(mine, self.images[key], said) and as_it_is
        return as_it_is

    def _check(self, mine: SeenImage, seen: SeenImage, name: str) -> bool:
        kinds = {2: "plane", 3: "volume"}
        if mine.axes != seen.axes:
            raise DataError(f"{name}: a {kinds[mine.axes]}; the classifier was fitted on {kinds[seen.axes]}s")
        if mine.channels != seen.channels and (mine.channels != 1 or seen.channels != 3):
            raise DataError(f"{name}: {mine.channels} channels; the classifier was fitted on images of {seen.channels}")
        if mine.rule != seen.rule:
            raise DataError(
                f"{name}: values are read by another rule than those the classifier was fitted on: "
                f"{mine.rule or BYTES.rule} in place of {seen.rule or BYTES.rule}"
            )
        if seen.spacing and not mine.spacing:
            raise DataError(
                f"{name}: the distance of voxels is not known, and it was for every image the classifier was fitted on"
            )
        if mine.constant and not seen.constant:
            raise DataError(f"{name}: every value is {mine.dim_max}; no image the classifier was fitted on was empty")
        if mine.dim_max < _DARK <= seen.dim_max:
            raise DataError(
                f"{name}: no value is above {mine.dim_max}, on a scale to 255; the darkest image the classifier was "
                f"fitted on reached {seen.dim_max}. Scale intensities as those were scaled"
            )
        return mine.channels == seen.channels

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "images": {name: asdict(image) for name, image in self.images.items()},
            "always": list(self.always),
            "studies": sorted(self.studies),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Seen:
        """Read back what :meth:`state` gave.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or is not what :meth:`state` gives.
        """
        images = {str(name): SeenImage(**image) for name, image in state["images"].items()}
        for name, image in images.items():
            if image.axes not in (2, 3) or not isinstance(image.channels, int) or not 0 <= image.dim_max <= 255:
                raise ValueError(f"seen images {name!r} with {image}")
        always = tuple(state["always"])
        if not images or not set(always) <= set(images):
            raise ValueError(f"seen images {', '.join(images)}, of them always {always}")
        studies = frozenset(map(str, state["studies"]))
        if not studies or any(len(mark) != _MARK for mark in studies):
            raise ValueError(f"seen studies: expected {_MARK} digits of the digest of each")
        return cls(images, always, studies)


def _marks(cases: Cases) -> dict[int, str]:
    """The start of the digest of each study, by its row."""
    assert cases.rows is not None
    found = {}
    for row in np.unique(cases.rows).tolist():
        pictures, places = cases.pictures.home(np.array([row]))
        found[row] = pictures.digest(int(places[0])).hex()[:_MARK]
    return found


def looks_at(cases: Cases) -> list[Mapping[str, SeenImage]]:
    """What the images of every study of the cases are like, each read once as long as they are there."""
    assert cases.rows is not None
    rows = np.unique(cases.rows)
    with progress(len(rows), "images", "looking at") as shown:
        found = []
        for row in rows.tolist():
            found.append(_look(cases.pictures, row))
            shown.advance(1)
    return found


def looked_at(pictures: Pictures, rows: np.ndarray) -> dict[int, Mapping[str, SeenImage]]:
    """What the images of the studies at ``rows`` are like, by row; to be kept under ``looks`` with what they become."""
    return {row: _look(pictures, row) for row in np.unique(rows).tolist()}


class _Fitting(Pictures):
    """Studies as the network expects them."""

    def __init__(self, cases: Cases, seen: Seen) -> None:
        super().__init__()
        assert cases.rows is not None
        self._base, self._seen = cases.pictures, seen
        bags = np.arange(len(cases)) if cases.bags is None else cases.bags
        self._case = dict(zip(cases.rows.tolist(), bags.tolist(), strict=True))
        self._name, self._keys = cases.name, cases.keys

    def __len__(self) -> int:
        return len(self._base)

    def study(self, position: int) -> Study:
        """The study at ``position``.

        Raises:
            DataError: it is not like those that were seen.
        """
        study = self._base.study(position)
        if self._fits(position):
            return study
        images = {name: self._brought(name, image) for name, image in study.images.items()}
        return replace(study, images=images)

    def home(self, positions: np.ndarray) -> tuple[Pictures, np.ndarray]:
        """What is computed of studies that are shown as they are is kept with them."""
        fits = [self._fits(int(position)) for position in np.unique(positions)]
        return self._base.home(positions) if all(fits) else (self, positions)

    def _fits(self, position: int) -> bool:
        key = str(self._keys[self._case[position]])
        return self._seen.check(_look(self._base, position), f"{self._name}: {'image ' * key.isdigit()}{key}")

    def _brought(self, name: str, image: Image) -> Image:
        repeats = self._seen.images[name].channels // image.pixels.shape[0]
        return image if repeats == 1 else replace(image, pixels=np.repeat(image.pixels, repeats, axis=0))


def _look(pictures: Pictures, position: int) -> Mapping[str, SeenImage]:
    base, places = pictures.home(np.array([position]))
    looks: dict[int, Mapping[str, SeenImage]] = base.memo.setdefault("looks", {})
    place = int(places[0])
    if place not in looks:
        study = base.study(place)
        looks[place] = {name: _look_of(image, study.rule(name)) for name, image in study.images.items()}
    return looks[place]


def _look_of(image: Image, rule: Rule) -> SeenImage:
    shown = image.pixels
    read_by: dict[str, Any] | None = None
    if rule != BYTES:  # what the network sees, on a scale to 255
        shown = (in_range(torch.from_numpy(shown[None].copy()), rule).numpy() + 1) * 127.5
        read_by = rule.model_dump(mode="json")
    low, high = shown.min(), shown.max()
    spacing = bool(image.spacing_mm) and bool(np.isfinite(image.spacing_mm).all())
    return SeenImage(image.pixels.ndim - 1, image.pixels.shape[0], spacing, int(high), bool(low == high), read_by)
