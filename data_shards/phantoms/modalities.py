"""The look of each modality: which value a tissue has, what the scanner adds, and how values become stored numbers."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from data_shards.phantoms.grid import Grid
from data_shards.phantoms.noise import blur, poisson, rician, streaks, transmission
from data_shards.phantoms.tissues import ATTENUATION, HOUNSFIELD, UPTAKE, Table
from data_shards.vocabulary import Modality


@dataclass(frozen=True)
class Scan:
    """The conditions of one scan, the same for all images made in it.

    Attributes:
        grid: where the voxels are.
        texture: relative deviation within tissues, D,H,W.
        shading: slow field about 0, D,H,W.
        noise: factor on the noise of the modality.
    """

    grid: Grid
    texture: np.ndarray
    shading: np.ndarray
    noise: float


@dataclass(frozen=True)
class Look(abc.ABC):
    """One way of making an image.

    Attributes:
        table: the value of each tissue.
        window: the values that become 0 and 255 in an image of uint8.
    """

    table: Table
    window: tuple[float, float]
    modality: ClassVar[Modality]

    @abc.abstractmethod
    def acquire(self, clean: np.ndarray, scan: Scan, random: np.random.Generator) -> np.ndarray:
        """What the scanner measures of ``clean`` values of tissues, D,H,W.

        Returns:
            float64, D,H,W in the unit of the modality; 1,H,W for a projection.
        """

    @abc.abstractmethod
    def native(self, values: np.ndarray) -> np.ndarray:
        """The values in the dtype that scanners store."""

    def display(self, values: np.ndarray) -> np.ndarray:
        """The window of the values as uint8."""
        low, high = self.window
        return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Mri(Look):
    """Magnitude images: shading of the coil, Rician noise. Native: uint16, 1000 for a signal of 1."""

    window: tuple[float, float] = (0.0, 1.1)
    modality: ClassVar[Modality] = Modality.mri
    SIGMA: ClassVar[float] = 0.06

    def acquire(self, clean: np.ndarray, scan: Scan, random: np.random.Generator) -> np.ndarray:
        """See :meth:`Look.acquire`."""
        signal = clean * (1 + scan.texture) * np.exp(scan.shading)
        return rician(signal, self.SIGMA * scan.noise, random)

    def native(self, values: np.ndarray) -> np.ndarray:
        """See :meth:`Look.native`."""
        return np.rint(np.clip(values * 1000, 0, 65535)).astype(np.uint16)


@dataclass(frozen=True)
class Ct(Look):
    """Hounsfield units: slow cupping, normal noise, half of its variance in streaks. Native: int16 HU."""

    table: Table = field(default_factory=lambda: HOUNSFIELD)
    window: tuple[float, float] = (-160.0, 240.0)
    modality: ClassVar[Modality] = Modality.ct
    SIGMA: ClassVar[float] = 35.0
    CUPPING: ClassVar[float] = 40.0
    # Tissues vary less in density than in signal.
    DENSITY_TEXTURE: ClassVar[float] = 0.3

    def acquire(self, clean: np.ndarray, scan: Scan, random: np.random.Generator) -> np.ndarray:
        """See :meth:`Look.acquire`."""
        density = (clean + 1000) * (1 + self.DENSITY_TEXTURE * scan.texture)
        noise = random.normal(size=clean.shape) + streaks(scan.grid.shape, random)
        return density - 1000 + self.CUPPING * scan.shading + self.SIGMA * scan.noise * 0.5**0.5 * noise

    def native(self, values: np.ndarray) -> np.ndarray:
        """See :meth:`Look.native`."""
        return np.rint(np.clip(values, -1024, 3071)).astype(np.int16)


@dataclass(frozen=True)
class Pet(Look):
    """Uptake: blur of the scanner, then counting. Native: float32, 1 for grey matter."""

    table: Table = field(default_factory=lambda: UPTAKE)
    window: tuple[float, float] = (0.0, 1.6)
    modality: ClassVar[Modality] = Modality.pet
    FWHM_MM: ClassVar[float] = 6.0
    COUNTS: ClassVar[float] = 60.0

    def acquire(self, clean: np.ndarray, scan: Scan, random: np.random.Generator) -> np.ndarray:
        """See :meth:`Look.acquire`."""
        uptake = clean * (1 + scan.texture) * np.exp(scan.shading / 2)
        return poisson(blur(uptake, self.FWHM_MM, scan.grid.spacing), self.COUNTS / scan.noise**2, random)

    def native(self, values: np.ndarray) -> np.ndarray:
        """See :meth:`Look.native`."""
        return values.astype(np.float32)


@dataclass(frozen=True)
class Radiograph(Look):
    """Line integrals of the attenuation along D, counted photon by photon. Native: float32, without unit."""

    table: Table = field(default_factory=lambda: ATTENUATION)
    window: tuple[float, float] = (0.5, 5.5)
    modality: ClassVar[Modality] = Modality.xray
    PHOTONS: ClassVar[float] = 1e4

    def acquire(self, clean: np.ndarray, scan: Scan, random: np.random.Generator) -> np.ndarray:
        """See :meth:`Look.acquire`."""
        line = project(clean * (1 + Ct.DENSITY_TEXTURE * scan.texture), scan.grid)
        measured = transmission(line, self.PHOTONS / scan.noise**2, random)
        return measured * np.exp(scan.shading.mean(axis=0, keepdims=True) / 2)

    def native(self, values: np.ndarray) -> np.ndarray:
        """See :meth:`Look.native`."""
        return values.astype(np.float32)


def project(attenuation: np.ndarray, grid: Grid) -> np.ndarray:
    """Line integrals along D of attenuation per mm, for rays that are parallel; 1,H,W."""
    return attenuation.sum(axis=0, keepdims=True) * grid.spacing[0]
