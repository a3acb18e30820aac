"""Fourier features of token positions (Perceiver, Jaegle et al., ICML 2021, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

REFERENCE_MM = 200.0
"""The extent in mm that maps to coordinates -1 to 1. An image whose spacing is unknown is taken to fill it."""


def grid_coordinates(
    size: Sequence[int], extent_mm: Sequence[float] | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Coordinates of the cells of a regular grid centred on the image.

    Args:
        size: cells along each axis.
        extent_mm: physical length of each axis; None takes :data:`REFERENCE_MM` for each.
        device: where the result lies.

    Returns:
        ``T, A``: one row per cell in row-major order, one column per axis; 1 is half of :data:`REFERENCE_MM`.
    """
    extents = [REFERENCE_MM] * len(size) if extent_mm is None else extent_mm
    axes = [
        ((torch.arange(cells, device=device) + 0.5) / cells * 2 - 1) * (extent / REFERENCE_MM)
        for cells, extent in zip(size, extents, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


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
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.linspace(1.0, max_frequency, bands), persistent=False)

    def forward(self, coordinates_TA: Tensor) -> Tensor:
        """Features ``T, channels`` of coordinates ``T, A``."""
        phase_TF = (coordinates_TA[..., None] * self.frequencies * torch.pi).flatten(-2)
        return torch.cat([coordinates_TA, phase_TF.sin(), phase_TF.cos()], dim=-1)
