"""What every objective is trained on: three sets of planes together, and two sets of volumes, as arrays with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.brains import SPLITS, real
from benchmarks.studies.runs import PLANES, SHAPES, VIEWS, shards, source
from finetune.cases import Cases
from finetune.readers import read_cases


@dataclass(frozen=True)
class Ground:
    """Sets that one network is trained on together; the share of each goes with the root of its size.

    Attributes:
        name: of the ground.
        sets: cases by split, of each set.
        rows: images of a step.
        views: of the training.
        subjects_fit: whether images are of different subjects and lie alike, so that they may be fused.
        note: what has to be known of the images.
    """

    name: str
    sets: Mapping[str, Mapping[str, Cases]]
    rows: int
    views: dict[str, Any]
    subjects_fit: bool = False
    note: str = ""


def planes(folder: Path) -> Ground:
    """Breast ultrasound, fundus photographs and chest X-rays: those of the demonstration."""
    sets = {name: read_cases(shards(folder / "shards", source(name))) for name in PLANES}
    note = "The three sets of planes are trained on together; pneumoniamnist is reassembled, not the official file."
    return Ground("planes", sets, 64, VIEWS, note=note)


def adrenal(folder: Path) -> Ground:
    """Shapes of adrenal glands, at half resolution so that the time suffices for enough steps."""
    splits = read_cases(shards(folder / "shards", source("adrenalmnist3d")))
    halved = {split: replace(cases, images=half(_array(cases)), spacing_mm=None) for split, cases in splits.items()}
    note = "Volumes are at half resolution: adrenal glands of 14 voxels a side,"
    return Ground("adrenal", {"adrenalmnist3d": halved}, 32, SHAPES, note=note)


def hippocampus(folder: Path) -> Ground:
    """Hippocampus volumes at 2 mm: is the hippocampus larger than the median?"""
    brains = real(folder)
    splits = {}
    for split in SPLITS:
        cases = brains.wholes(split)
        splits[split] = replace(cases, images=half(_array(cases)))
    note = (
        "hippocampus volumes at 2 mm, of which is told whether the hippocampus is larger than the median; brainfuse "
        "without a generator."
    )
    return Ground("hippocampus", {"hippocampus": splits}, 32, VIEWS, True, note)


GROUNDS: tuple[Callable[[Path], Ground], ...] = (planes, adrenal, hippocampus)


def half(volumes: np.ndarray) -> np.ndarray:
    """Averages over 2 x 2 x 2 voxels of ``N,C,D,H,W``, whose sides are even, as uint8."""
    count, channels, *sides = volumes.shape
    cells = volumes.reshape(count, channels, *(part for side in sides for part in (side // 2, 2)))
    return np.rint(cells.mean(axis=(3, 5, 7))).astype(np.uint8)


def _array(cases: Cases) -> np.ndarray:
    assert isinstance(cases.images, np.ndarray)
    return cases.images
