"""The images of cases: read when they are asked for, as prepared pixels, each with its own shape and spacing.

What is read from files is decoded once: the prepared pixels go to a temporary file without a name, which the system
removes with the process, and are read from there again. So memory holds a batch, whatever the number of images.
"""

from __future__ import annotations

import abc
import hashlib
import math
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.intensity import BYTES, Rule
from data_shards.sample import Image
from data_shards.support.errors import DataError, MedformerError
from data_shards.vocabulary import Modality, Organ


@dataclass(frozen=True)
class Origin:
    """The image that a prepared one was made of.

    Attributes:
        shape: its voxels along each axis.
        change: from indices in the prepared image to indices in it, one row and column more than axes.
        affine: of a volume, 4x4, from its indices to mm; None where that is not known.
        path: the file it was read from; None for none of its own.
    """

    shape: tuple[int, ...]
    change: np.ndarray
    affine: np.ndarray | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Study:
    """What is shown to the network at once: images of one subject by name, such as ``t1w`` and ``flair``.

    Attributes:
        images: pixels ``C,H,W`` or ``C,D,H,W`` with modality and spacing, uint8 unless ``rules`` says more; a missing
            image is not in it.
        organ: the body part shown.
        name: how tables call it, as ``row 17``; the path of its first image where the user wants to see paths.
        rules: how values become the range of the network, by image name, where they are not 8 bits.
        window: voxels of the windows in which a frozen network reads images that are larger, one number for every axis
            or one for each; None where it reads them whole.
        overlap: of neighbouring windows, as a fraction of their sides.
        paths: the file of each image, where it has one; no result tells them.
        origins: what each prepared image was made of; empty where they are as they were.
    """

    images: Mapping[str, Image]
    organ: Organ = Organ.unknown
    name: str = ""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    window: int | tuple[int, ...] | None = None
    overlap: float = 0.5
    paths: Mapping[str, Path] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def rule(self, name: str) -> Rule:
        """How the values of an image become the range of the network."""
        return self.rules.get(name, BYTES)

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for studies that may go through a network in one batch: of the same names and shapes."""
        return tuple((name, image.pixels.shape) for name, image in self.sorted_images)

    @property
    def sorted_images(self) -> list[tuple[str, Image]]:
        """The images by name: in this order they are shown."""
        return sorted(self.images.items())


class Pictures(abc.ABC):
    """All studies of a dataset by position. Reading the same position twice gives the same pixels.

    Attributes:
        memo: what was computed of them, for whoever wants to keep it as long as they are there.
    """

    def __init__(self) -> None:
        self.memo: dict[Any, Any] = {}
        self._digests: dict[int, bytes] = {}

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many studies."""

    @abc.abstractmethod
    def study(self, position: int) -> Study:
        """The study at ``position``.

        Raises:
            DataError: it cannot be read; the message has no identifier of a person in it.
        """

    def home(self, positions: np.ndarray) -> tuple[Pictures, np.ndarray]:
        """Where what is computed of these studies is kept, and their positions there."""
        return self, positions

    def digest(self, position: int) -> bytes:
        """SHA-256 over the pixels of a study."""
        if position not in self._digests:
            digest = hashlib.sha256()
            for name, image in sorted(self.study(position).images.items()):
                digest.update(name.encode() * (name != "image"))
                digest.update(image.pixels.tobytes())
            self._digests[position] = digest.digest()
        return self._digests[position]


class ArrayPictures(Pictures):
    """One image each, from an array in memory.

    Args:
        pixels: uint8 ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        spacing_mm: ``(N, A)``, NaN where it is not known; None when nothing is known.
        organ: body part shown.
        modality: how the images were made.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        spacing_mm: np.ndarray | None = None,
        organ: Organ = Organ.unknown,
        modality: Modality = Modality.unknown,
    ) -> None:
        super().__init__()
        self.pixels = pixels
        self._spacing_NA = spacing_mm
        self._organ, self._modality = organ, modality

    def __len__(self) -> int:
        return len(self.pixels)

    def study(self, position: int) -> Study:
        """The image at ``position``, called ``image``."""
        spacing: tuple[float, ...] = ()
        if self._spacing_NA is not None:
            spacing = tuple(self._spacing_NA[position].tolist())
        return Study({"image": Image(self.pixels[position], self._modality, spacing)}, self._organ)


class ChosenPictures(Pictures):
    """Some studies of others, with which what is computed of them is kept.

    Args:
        base: all of them.
        positions: of these, in their order.
    """

    def __init__(self, base: Pictures, positions: np.ndarray) -> None:
        super().__init__()
        self._base, self._positions = base.home(positions)

    def __len__(self) -> int:
        return len(self._positions)

    def study(self, position: int) -> Study:
        """The study at ``position``."""
        return self._base.study(int(self._positions[position]))

    def home(self, positions: np.ndarray) -> tuple[Pictures, np.ndarray]:
        """Those it was chosen of."""
        return self._base, self._positions[positions]

    def digest(self, position: int) -> bytes:
        """SHA-256 over the pixels of a study."""
        return self._base.digest(int(self._positions[position]))


_Kept = tuple[Study, list[tuple[str, Image, tuple[int, ...], int]]]
"""A study without its images; and of each of these the name, all but the pixels, their shape, and where they lie."""


class ReadPictures(Pictures):
    """Studies that a function reads and prepares, each once.

    Args:
        count: how many there are.
        read: gives the study at a position.
    """

    def __init__(self, count: int, read: Callable[[int], Study]) -> None:
        super().__init__()
        self._count, self._read = count, read
        self._forget()

    def _forget(self) -> None:
        self._file: Any = None
        self._end = 0
        self._kept: dict[int, _Kept] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        """Without the temporary file: another process, as scikit-learn starts them, reads for itself."""
        return {name: value for name, value in vars(self).items() if name not in ("_file", "_end", "_kept", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def study(self, position: int) -> Study:
        """The study at ``position``; from the temporary file when it was read before.

        Raises:
            DataError: it cannot be read.
            MedformerError: the disk of temporary files is full.
        """
        with self._lock:
            if position in self._kept:
                return self._again(position)
            study = self._read(position)
            self._keep(position, study)
            return study

    def _keep(self, position: int, study: Study) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="medformer-")  # noqa: SIM115 (lives as long as this)
        parts = []
        for name, image in study.images.items():
            pixels = np.ascontiguousarray(image.pixels)
            if pixels.dtype != np.uint8 and study.rule(name) == BYTES:
                raise DataError(f"expected 8 bits per channel, found {pixels.dtype}")
            try:
                self._file.seek(self._end)
                self._file.write(pixels.data)
                self._file.flush()
            except OSError as error:
                raise MedformerError(
                    f"{tempfile.gettempdir()}: the prepared images do not fit there ({error.strerror}); TMPDIR names "
                    "another folder for them"
                ) from error
            parts.append(
                (name, replace(image, pixels=np.zeros((1,) * pixels.ndim, pixels.dtype)), pixels.shape, self._end)
            )
            self._end += pixels.nbytes
        self._kept[position] = replace(study, images={}), parts

    def _again(self, position: int) -> Study:
        study, parts = self._kept[position]
        images = {}
        for name, image, shape, start in parts:
            dtype = image.pixels.dtype
            content = os.pread(self._file.fileno(), math.prod(shape) * dtype.itemsize, start)
            images[name] = replace(image, pixels=np.frombuffer(content, dtype).reshape(shape))
        return replace(study, images=images)


class JoinedPictures(Pictures):
    """The studies of several sets, one after the other."""

    def __init__(self, parts: Sequence[Pictures]) -> None:
        super().__init__()
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def study(self, position: int) -> Study:
        """The study at ``position``."""
        number, place = self._place(position)
        return self._parts[number].study(place)

    def digest(self, position: int) -> bytes:
        """SHA-256 over the pixels of a study."""
        number, place = self._place(position)
        return self._parts[number].digest(place)

    def _place(self, position: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, position, side="right"))
        return number, position - (int(self._ends[number - 1]) if number else 0)
