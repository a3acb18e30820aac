"""The named sets of phantoms."""

from __future__ import annotations

from data_shards.phantoms.anatomy import abdomen, brain, knee, thorax
from data_shards.phantoms.grid import CORONAL, SAGITTAL
from data_shards.phantoms.lesions import LesionKind
from data_shards.phantoms.modalities import Ct, Mri, Pet, Radiograph
from data_shards.phantoms.recipe import PROJECTION, SLICES, Recipe
from data_shards.phantoms.subject import Body
from data_shards.phantoms.tissues import PROTON_DENSITY, T1, T2
from data_shards.vocabulary import Organ

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
