"""Images that a frozen network reads in windows where they are larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from finetune.cases import Cases
from finetune.images import Pictures, Study


class WindowedPictures(Pictures):
    """The studies of others, to be read in windows; what is computed of them is kept apart from that of whole ones.

    Args:
        base: the studies.
        window: voxels of a window.
        overlap: of neighbouring windows, as a fraction of their sides.
    """

    def __init__(self, base: Pictures, window: int | tuple[int, ...], overlap: float) -> None:
        super().__init__()
        self._base, self._window, self._overlap = base, window, overlap

    def __len__(self) -> int:
        return len(self._base)

    def study(self, position: int) -> Study:
        """The study at ``position``."""
        return replace(self._base.study(position), window=self._window, overlap=self._overlap)

    def digest(self, position: int) -> bytes:
        """SHA-256 over the pixels of a study."""
        return self._base.digest(position)


def windowed(cases: Cases, window: int | Sequence[int] | None, overlap: float) -> Cases:
    """The same cases, their images to be read in windows where they are larger.

    Args:
        cases: of planes or volumes.
        window: voxels of a window, one number for every axis or one for each; None leaves cases as they are.
        overlap: of neighbouring windows, as a fraction of their sides.
    """
    if window is None:
        return cases
    assert cases.rows is not None
    sides = window if isinstance(window, int) else tuple(window)
    sides = sides[0] if isinstance(sides, tuple) and len(sides) == 1 else sides
    base, rows = cases.pictures.home(cases.rows)
    kept = base.memo.setdefault("windows", {})
    if (sides, overlap) not in kept:
        kept[sides, overlap] = WindowedPictures(base, sides, overlap)
    return replace(cases, images=kept[sides, overlap], spacing_mm=None, rows=rows)
