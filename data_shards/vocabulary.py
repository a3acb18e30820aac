"""The closed vocabulary of Medformer: what an image shows, how it was made, and what is asked of it.

Ids are stored in checkpoints (a latent collection has one row per id) and in indices, so the enumerations are
append-only: a member is never renumbered, renamed or removed. ``unknown`` is always id 0.
The source slides name brain, chest, knee, abdomen; MRI, CT, PET, X-ray; 2D, 3D; segmentation, classification and
self-supervised tasks; the other members are those of the MedMNIST collection.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from data_shards.support.errors import DataError, nearest


class Organ(IntEnum):
    """The body part an image shows."""

    unknown = 0
    brain = 1
    chest = 2
    knee = 3
    abdomen = 4
    breast = 5
    colon = 6
    skin = 7
    retina = 8
    blood = 9
    kidney = 10


class Modality(IntEnum):
    """How an image was made."""

    unknown = 0
    mri = 1
    ct = 2
    pet = 3
    xray = 4
    ultrasound = 5
    oct = 6
    fundus = 7
    dermatoscopy = 8
    histology = 9
    microscopy = 10
    electron_microscopy = 11


class Dimensionality(IntEnum):
    """Whether an image is a plane or a volume."""

    unknown = 0
    planar = 1
    volumetric = 2


class Task(IntEnum):
    """What is asked of an image; the classification members are the task kinds of MedMNIST."""

    unknown = 0
    self_supervised = 1
    binary = 2
    multiclass = 3
    multilabel = 4
    ordinal = 5
    segmentation = 6
    regression = 7


Word = TypeVar("Word", bound=IntEnum)


def word(enumeration: type[Word], name: str) -> Word:
    """The member of ``enumeration`` called ``name``.

    Raises:
        DataError: there is none; the nearest valid name is given.
    """
    try:
        return enumeration[name]
    except KeyError:
        kind = enumeration.__name__.lower()
        raise DataError(f"unknown {kind} {name!r}{nearest(name, enumeration.__members__)}") from None
