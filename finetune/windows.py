"""Images that a frozen network reads in windows where they are larger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from data_shards.support.errors import ConfigError
from finetune.backbones import OpenedBackbone
from finetune.cases import Cases
from finetune.config import LONE_OVERLAP, FinetuneConfig, WindowsConfig
from finetune.images import Pictures, Study
from finetune.reference.recipe import axes_of
from finetune.strategies import create_strategy
from pretrain.tiling import window_of_crops


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


def window_of(config: WindowsConfig, opened: OpenedBackbone, cases: Cases) -> tuple[int, ...] | None:
    """The windows in which a frozen network reads these images: those asked for, or those of its training.

    A network that was trained on crops of volumes reads volumes in windows of their size, in whole tokens.

    Returns:
        Voxels of a window; None where images are read whole.
    """
    if config.window is not None:
        return config.window or None
    if opened.crop is None or axes_of(cases) != 3:
        return None
    return window_of_crops(opened.crop, int(opened.module.stride))


def window_of_fit(config: FinetuneConfig, opened: OpenedBackbone, cases: Cases) -> tuple[int, ...] | None:
    """As :func:`window_of`, by itself only where a fit leaves the network frozen, and shows it volumes as they are."""
    trains = create_strategy(config.strategy, config.strategy_options).trains_backbone
    if trains or config.slices is not None:
        return config.window or None
    return window_of(config, opened, cases)


def told_of_crops(name: str, window: Sequence[int]) -> str:
    """What is said where windows were not asked for."""
    sides = " x ".join(map(str, window))
    return (
        f"{name} reads larger volumes in windows of {sides} voxels, as it was trained on crops; window=none: as a whole"
    )


def check_overlap(config: WindowsConfig, windows: Iterable[object]) -> None:
    """Refuse an overlap where no network reads in windows.

    Args:
        config: what was asked for.
        windows: those of each network, or the crops it was trained on; None where there are none.

    Raises:
        ConfigError: nothing would overlap.
    """
    if config.lone_overlap and all(each is None for each in windows):
        raise ConfigError(LONE_OVERLAP)


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
