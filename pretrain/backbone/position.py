"""Where tokens lie in mm, and Fourier features of it (Perceiver, Jaegle et al., ICML 2021, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

REFERENCE_MM = 200.0
"""The extent in mm that maps to coordinates -1 to 1. An image whose spacing is unknown is taken to fill it."""

Spacing = Sequence[float] | Tensor | None
"""Distance of voxels along each axis in mm: one for all images, or ``B, A`` with NaN where it is unknown."""


def check_spacing(spacing_mm: Spacing, axes: int) -> None:
    """Refuse spacings that are none of images of so many axes; the values of a tensor are not looked at.

    Raises:
        ValueError: the numbers do not fit the axes, or one of them is not a length.
    """
    if isinstance(spacing_mm, Tensor):
        if spacing_mm.ndim != 2 or spacing_mm.shape[1] != axes:
            raise ValueError(f"spacing_mm has shape {tuple(spacing_mm.shape)}, images of {axes} axes need B,{axes}")
        return
    if spacing_mm is None:
        return
    if not isinstance(spacing_mm, Sequence):
        raise ValueError(f"spacing_mm {spacing_mm}: a sequence with a length for each of the {axes} axes is expected")
    if spacing_mm and len(spacing_mm) != axes:
        raise ValueError(f"spacing_mm has {len(spacing_mm)} numbers, images of {axes} axes need {axes}")
    if not all(isinstance(length, Real) and 0 < length < math.inf for length in spacing_mm):
        raise ValueError(f"spacing_mm {tuple(spacing_mm)}: lengths above 0 are expected")


@dataclass(frozen=True)
class Grid:
    """The tokens of an image: a regular grid, each at the centre of the voxels that it sees.

    Attributes:
        cells: tokens along each axis.
        voxels: voxels along each axis.
        stride: voxels from one token to the next.
        offset: where a token lies, counted in voxels from the centre of the first voxel that it sees.
    """

    cells: tuple[int, ...]
    voxels: tuple[int, ...]
    stride: int
    offset: float

    def coordinates(self, spacing_mm: Spacing = None, device: torch.device | str | None = None) -> Tensor:
        """Where the tokens are, from the centre of the image; 1 is half of :data:`REFERENCE_MM`.

        Args:
            spacing_mm: see :data:`Spacing`; an image of unknown spacing is :data:`REFERENCE_MM` long on that axis.
            device: where the result lies.

        Returns:
            ``T, A``, or ``B, T, A`` when each image has a spacing of its own: one row per token in row-major order.

        Raises:
            ValueError: see :func:`check_spacing`.
        """
        check_spacing(spacing_mm, len(self.cells))
        if isinstance(spacing_mm, Tensor):
            known_BA = spacing_mm.to(device=device, dtype=torch.float32)
            lengths_BA = torch.stack([known_BA[:, axis] * count for axis, count in enumerate(self.voxels)], dim=1)
            extents_BA = torch.where(known_BA > 0, lengths_BA, REFERENCE_MM)
            return self._unit(device) * (extents_BA / REFERENCE_MM)[:, None]
        if not spacing_mm:
            return self._unit(device)
        extents = [length * count / REFERENCE_MM for length, count in zip(spacing_mm, self.voxels, strict=True)]
        return self._unit(device, extents)

    def _unit(self, device: torch.device | str | None, extents: Sequence[float] | None = None) -> Tensor:
        """``T, A``: coordinates when each axis reaches from -1 to 1, or from minus to plus its extent."""
        # Sizes and extents enter as numbers: as a tensor they would have to be copied to the device, which waits.
        axes = [
            ((self._middles(cells, voxels, device) + 0.5) * (2 / voxels) - 1) * extent
            for cells, voxels, extent in zip(self.cells, self.voxels, extents or [1.0] * len(self.cells), strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)

    def _middles(self, cells: int, voxels: int, device: torch.device | str | None) -> Tensor:
        """Of the voxels that each token sees, along an axis; the last patch may see fewer."""
        first = torch.arange(cells, device=device) * self.stride
        if not self.offset:
            return first
        last = torch.maximum((first + round(2 * self.offset)).clamp(max=voxels - 1), first)
        return (first + last) / 2


class FourierPosition(nn.Module):
    """Raw coordinates, then all sines grouped by axis, then all cosines; the order of the reference implementation.

    Args:
        axes: number of coordinates per position.
        bands: frequencies per axis, equally spaced from 1 to ``max_frequency``.
        max_frequency: highest frequency, in half-periods per unit of coordinate.
    """

    def __init__(self, axes: int, bands: int = 12, max_frequency: float = 12.0) -> None:
        super().__init__()
        self.channels = axes * (2 * bands + 1)
        self.bands, self.max_frequency = bands, max_frequency

    def forward(self, coordinates_TA: Tensor) -> Tensor:
        """Features ``..., T, channels`` of coordinates ``..., T, A``."""
        # No buffer: one that is not saved would hold nothing in a network that was made on the meta device.
        dtype = torch.promote_types(coordinates_TA.dtype, torch.float32)
        frequencies = torch.linspace(1.0, self.max_frequency, self.bands, device=coordinates_TA.device, dtype=dtype)
        phase_TF = (coordinates_TA[..., None] * frequencies * torch.pi).flatten(-2)
        return torch.cat([coordinates_TA, phase_TF.sin(), phase_TF.cos()], dim=-1)
