"""What a named set of phantoms is: whose bodies, how they are scanned, how many there are; and the sets by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_shards.phantoms.anatomy import abdomen, brain, knee, thorax
from data_shards.phantoms.grid import AXIAL, CORONAL, SAGITTAL, Grid, View
from data_shards.phantoms.lesions import LesionKind
from data_shards.phantoms.modalities import Ct, Look, Mri, Pet, Radiograph
from data_shards.phantoms.subject import Body
from data_shards.phantoms.tissues import PROTON_DENSITY, T1, T2
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


BRAIN = Body(
    population="phantom-brain",
    organ=Organ.brain,
    build=brain.build,
    extent_mm=(190.0, 230.0, 200.0),
    kinds={
        1: ("tumour", LesionKind("white matter", (1, 1), (11, 20), flatness=1.3)),
        2: ("small vessel lesions", LesionKind("white matter", (5, 10), (4, 7), flatness=1.5)),
    },
    clutter=("fat", "blood", "fluid"),
)
THORAX = Body(
    population="phantom-thorax",
    organ=Organ.chest,
    build=thorax.build,
    extent_mm=(380.0, 260.0, 320.0),
    kinds={
        1: ("nodule", LesionKind("lungs", (1, 3), (7, 15), flatness=1.2)),
        2: ("consolidation", LesionKind("lungs", (1, 2), (26, 44), flatness=1.5, opacity=0.8, softness_mm=14)),
    },
    clutter=("metal", "blood", "fibre", "fluid"),
)
KNEE = Body(
    population="phantom-knee",
    organ=Organ.knee,
    build=knee.build,
    extent_mm=(120.0, 160.0, 160.0),
    kinds={
        1: ("marrow lesion", LesionKind("marrow", (1, 2), (7, 13), flatness=1.4, softness_mm=3)),
        2: ("cyst", LesionKind("behind the joint", (1, 1), (8, 14), flatness=1.4)),
    },
    clutter=("fluid", "fibre", "blood"),
)
ABDOMEN = Body(
    population="phantom-abdomen",
    organ=Organ.abdomen,
    build=abdomen.build,
    extent_mm=(380.0, 290.0, 240.0),
    kinds={
        1: ("cyst", LesionKind("liver", (1, 3), (9, 22), flatness=1.15)),
        2: ("tumour", LesionKind("liver", (1, 3), (11, 26), flatness=1.4, softness_mm=3)),
    },
    clutter=("blood", "fluid", "metal", "fibre"),
)

# Not every slice of a subject meets a lesion: fewer subjects without one balance the classes of the slices.
_OF_SLICES = (0.2, 0.4, 0.4)
_LUNG_WINDOW = (-1000.0, 400.0)

RECIPES: dict[str, Recipe] = {
    "phantom-brain-mri": Recipe(title="Brain MRI phantoms, T1", body=BRAIN, looks={"image": Mri(T1)}),
    "phantom-brain-mri-t2": Recipe(title="Brain MRI phantoms, T2", body=BRAIN, looks={"image": Mri(T2)}),
    "phantom-brain-mri-2d": Recipe(
        title="Axial slices of brain MRI phantoms, T1",
        body=BRAIN,
        looks={"image": Mri(T1)},
        form=SLICES,
        slab_mm=(-40.0, 60.0),
        prevalence=_OF_SLICES,
        images_per_subject=20,
    ),
    "phantom-brain-pet": Recipe(title="Brain PET phantoms", body=BRAIN, looks={"image": Pet()}),
    "phantom-brain-mri-pet": Recipe(
        title="Brain phantoms, MRI and PET on one grid; a fifth of the studies lack the PET",
        body=BRAIN,
        looks={"mri": Mri(T1), "pet": Pet()},
        missing={"pet": 0.2},
    ),
    "phantom-chest-ct": Recipe(title="Chest CT phantoms", body=THORAX, looks={"image": Ct(window=_LUNG_WINDOW)}),
    "phantom-chest-xray": Recipe(
        title="Chest radiograph phantoms, projected from volumes",
        body=THORAX,
        looks={"image": Radiograph()},
        view=CORONAL,
        form=PROJECTION,
        subjects=1200,
    ),
    "phantom-knee-mri": Recipe(
        title="Knee MRI phantoms, proton density", body=KNEE, looks={"image": Mri(PROTON_DENSITY)}, view=SAGITTAL
    ),
    "phantom-knee-mri-2d": Recipe(
        title="Sagittal slices of knee MRI phantoms, proton density",
        body=KNEE,
        looks={"image": Mri(PROTON_DENSITY)},
        view=SAGITTAL,
        form=SLICES,
        slab_mm=(-38.0, 38.0),
        prevalence=_OF_SLICES,
        images_per_subject=14,
    ),
    "phantom-abdomen-ct": Recipe(title="Abdominal CT phantoms", body=ABDOMEN, looks={"image": Ct()}),
    "phantom-abdomen-ct-2d": Recipe(
        title="Axial slices of abdominal CT phantoms",
        body=ABDOMEN,
        looks={"image": Ct()},
        form=SLICES,
        slab_mm=(-80.0, 110.0),
        prevalence=_OF_SLICES,
        images_per_subject=20,
    ),
}
