"""How far slices may lie from a regular grid, and what is done when they lie further."""

from __future__ import annotations

from dataclasses import dataclass

# What the sums of positions lose in float64, with much to spare.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class SliceRules:
    """Rules for the places of the slices of one volume.

    A slice may lie off its place on the regular grid that fits all slices best by ``relative`` of their distance, or
    by ``absolute_mm``, whichever is more. The second is for positions that were rounded, and never counts for more
    than a tenth of the distance: a slice that is missing moves others by a fifth at least.

    Attributes:
        relative: part of the distance of neighbouring slices.
        absolute_mm: millimetres.
        resample: whether volumes whose slices lie otherwise are interpolated onto a regular grid, and not refused.
    """

    relative: float = 0.02
    absolute_mm: float = 0.05
    resample: bool = False

    def tolerance(self, distance: float) -> float:
        """How far a slice may lie off its place when slices are ``distance`` apart, in the same unit."""
        return max(max(self.relative, _ROUNDING) * distance, min(self.absolute_mm, distance / 10))
