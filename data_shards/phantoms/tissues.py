"""What each tissue looks like in each kind of image.

The numbers are those of textbooks, rounded: what matters is which tissue is brighter than which. A lesion has a tissue
of its own; how clearly it shows is decided by its opacity (see :mod:`data_shards.phantoms.lesions`).
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, float]

# Signal from 0 to 1; fat and white matter bright, water dark.
T1: Table = {
    "air": 0.0,
    "fat": 0.95,
    "skin": 0.6,
    "muscle": 0.4,
    "bone": 0.08,
    "marrow": 0.75,
    "cartilage": 0.5,
    "fibre": 0.1,
    "fluid": 0.18,
    "blood": 0.2,
    "grey": 0.5,
    "white": 0.78,
    "nucleus": 0.6,
    "tumour": 0.25,
    "small vessel lesions": 0.35,
}

# Signal from 0 to 1; water bright, white matter darker than grey.
T2: Table = {
    "air": 0.0,
    "fat": 0.6,
    "skin": 0.4,
    "muscle": 0.2,
    "bone": 0.04,
    "marrow": 0.4,
    "cartilage": 0.5,
    "fibre": 0.06,
    "fluid": 1.0,
    "blood": 0.1,
    "grey": 0.55,
    "white": 0.36,
    "nucleus": 0.45,
    "tumour": 0.85,
    "small vessel lesions": 0.8,
}

# Proton density: joints as they are mostly imaged; marrow bright, cortical bone and fibres black, fluid brightest.
PROTON_DENSITY: Table = {
    "air": 0.0,
    "fat": 0.72,
    "skin": 0.4,
    "muscle": 0.32,
    "bone": 0.05,
    "marrow": 0.66,
    "cartilage": 0.46,
    "fibre": 0.08,
    "fluid": 0.98,
    "blood": 0.1,
    "marrow lesion": 0.28,
    "cyst": 0.98,
}

# Hounsfield units, with contrast agent in the portal phase.
HOUNSFIELD: Table = {
    "air": -1000,
    "lung": -840,
    "gas": -900,
    "fat": -100,
    "skin": 20,
    "muscle": 60,
    "organ": 50,
    "fluid": 10,
    "fibre": 90,
    "bone": 650,
    "marrow": 220,
    "blood": 160,
    "heart": 110,
    "liver": 110,
    "spleen": 125,
    "cortex": 190,
    "medulla": 120,
    "bowel": 70,
    "chyme": 25,
    "metal": 1800,
    "nodule": 40,
    "consolidation": -80,
    "cyst": 8,
    "tumour": 55,
}

# Uptake of a glucose tracer relative to grey matter.
UPTAKE: Table = {
    "air": 0.0,
    "fat": 0.05,
    "skin": 0.12,
    "muscle": 0.15,
    "bone": 0.06,
    "fluid": 0.03,
    "blood": 0.2,
    "grey": 1.0,
    "white": 0.35,
    "nucleus": 0.95,
    "tumour": 1.7,
    "small vessel lesions": 0.08,
}

# Attenuation of water for X-rays of a chest radiograph, per mm.
WATER_PER_MM = 0.02


def attenuation(hounsfield: float) -> float:
    """Linear attenuation per mm of what has ``hounsfield`` in CT."""
    return WATER_PER_MM * max(0.0, 1 + hounsfield / 1000)


ATTENUATION: Table = {tissue: attenuation(value) for tissue, value in HOUNSFIELD.items()}
