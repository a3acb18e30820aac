"""What a named set of phantoms is: whose bodies, how they are scanned, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_shards.phantoms.grid import AXIAL, Grid, View
from data_shards.phantoms.modalities import Look
from data_shards.phantoms.subject import Body
from data_shards.vocabulary import Modality, Organ, Task

VOLUME, SLICES, PROJECTION = "volume", "slices", "projection"
# A radiograph is summed over so many samples along its rays, whatever the size of the picture.
_LEAST_DEPTH, _MOST_DEPTH = 32, 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A set of scans.

    Attributes:
        title: one line for people.
        body: the subjects.
        looks: the images of a study by name.
        view: how the voxels lie in the body.
        form: :data:`VOLUME`, an image is a visit; :data:`SLICES`, an image is a plane of the first visit;
            :data:`PROJECTION`, an image is a visit seen through along D.
        slab_mm: between which positions along D slices are taken.
        missing: the share of studies that lack an image, by its name.
        prevalence: share of each class among subjects, in the order of the classes.
        subjects: how many subjects, all splits together.
        images_per_subject: visits, or slices.
        task: how the label is to be read.
    """

    title: str
    body: Body
    looks: dict[str, Look]
    view: View = AXIAL
    form: str = VOLUME
    slab_mm: tuple[float, float] = (0.0, 0.0)
    missing: dict[str, float] = field(default_factory=dict)
    prevalence: tuple[float, ...] = (0.34, 0.33, 0.33)
    subjects: int = 400
    images_per_subject: int = 2
    task: Task = Task.multiclass

    @property
    def organ(self) -> Organ:
        """The body part."""
        return self.body.organ

    @property
    def modality(self) -> Modality:
        """The look of the first image."""
        return next(iter(self.looks.values())).modality

    @property
    def classes(self) -> dict[int, str]:
        """Name of each label value."""
        return self.body.classes

    def grid(self, size: int) -> Grid:
        """The voxels of a whole volume with ``size`` along each axis of its images."""
        depth = min(max(size, _LEAST_DEPTH), _MOST_DEPTH) if self.form == PROJECTION else size
        along_d, along_h, along_w = (self.body.extent_mm[axis] for axis, _ in self.view)
        return Grid.around_centre(self.view, (along_d, along_h, along_w), (depth, size, size))

    def heights(self, count: int) -> tuple[float, ...]:
        """Where ``count`` slices are taken: in the middle of equal parts of the slab."""
        low, high = self.slab_mm
        return tuple(low + (high - low) * (number + 0.5) / count for number in range(count))
