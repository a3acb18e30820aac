"""One number from 0 (clean, simple, alike) to 1 (cluttered, noisy, varied) for everything that makes an image hard."""

from __future__ import annotations

from dataclasses import dataclass, fields

from data_shards.support.errors import DataError


@dataclass(frozen=True)
class Difficulty:
    """What a level of difficulty means; every value changes evenly from the level 0 to the level 1.

    Attributes:
        variability: share of the full range of anatomies that subjects are drawn from.
        deformation_mm: typical smooth displacement of the anatomy of a subject.
        detail: folding of a cortex, share of vessels and bowel loops that are drawn.
        turn_rad: spread (standard deviation) of the turn of the pose about each axis.
        shift_mm: spread of the shift of the pose along each axis.
        clutter: number of structures that look like part of a lesion but lie or run as no lesion does.
        texture: relative spread of the intensity within a tissue.
        noise: factor on the noise of the modality; 1 is the noise of a quick scan.
        bias: strength of the slow shading, as a log-intensity at the border.
        edge_voxels: width of a border between tissues in voxels; 1 is exact partial volume, more is blur.
        lesion_contrast: share of its full contrast that a lesion has.
        lesion_size: factor on the radii of lesions.
        lesion_roughness: how far the border of a lesion wanders, relative to its radius.
    """

    variability: float
    deformation_mm: float
    detail: float
    turn_rad: float
    shift_mm: float
    clutter: int
    texture: float
    noise: float
    bias: float
    edge_voxels: float
    lesion_contrast: float
    lesion_size: float
    lesion_roughness: float


EASIEST = Difficulty(
    variability=0.4,
    deformation_mm=0.0,
    detail=0.0,
    turn_rad=0.0,
    shift_mm=0.0,
    clutter=0,
    texture=0.0,
    noise=0.1,
    bias=0.0,
    edge_voxels=1.0,
    lesion_contrast=1.0,
    lesion_size=1.3,
    lesion_roughness=0.0,
)
HARDEST = Difficulty(
    variability=1.0,
    deformation_mm=7.0,
    detail=1.0,
    turn_rad=0.06,
    shift_mm=3.0,
    clutter=16,
    texture=0.09,
    noise=1.3,
    bias=0.4,
    edge_voxels=2.0,
    lesion_contrast=0.35,
    lesion_size=0.7,
    lesion_roughness=0.25,
)


def difficulty(level: float) -> Difficulty:
    """The parameters at ``level`` from 0 to 1: a straight line from :data:`EASIEST` to :data:`HARDEST`.

    Raises:
        DataError: the level is outside.
    """
    if not 0 <= level <= 1:
        raise DataError(f"difficulty is a number from 0 to 1, found {level}")
    values = {}
    for each in fields(Difficulty):
        low, high = getattr(EASIEST, each.name), getattr(HARDEST, each.name)
        value = low + (high - low) * level
        values[each.name] = round(value) if isinstance(low, int) else value
    return Difficulty(**values)
