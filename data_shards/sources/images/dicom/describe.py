"""What a header says about the patient and the making of the image, in closed words and numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_shards.sources.images.dicom import elements
from data_shards.sources.tables.privacy import age_in_years
from data_shards.vocabulary import Modality

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Defined terms of Modality (PS3.3 section C.7.3.1.1.1).
_MODALITY = {
    **dict.fromkeys(("CR", "DX", "DR", "RG", "MG"), Modality.xray),
    "MR": Modality.mri,
    "CT": Modality.ct,
    "PT": Modality.pet,
    "US": Modality.ultrasound,
    "OP": Modality.fundus,
    "OPT": Modality.oct,
    "SM": Modality.histology,
}

_AGE = re.compile(r"\d{1,3}[DWMY]")


def burned_in(dataset: Dataset) -> bool | None:
    """Whether identifying text is burned into the pixels (0028,0301); None when the file does not say."""
    return {"YES": True, "NO": False}.get(elements.text(dataset, "BurnedInAnnotation").upper())


def is_projection(dataset: Dataset) -> bool:
    """Whether the image is a projection radiograph."""
    return modality_of(dataset) is Modality.xray


def modality_of(dataset: Dataset) -> Modality:
    """The word of the vocabulary for Modality (0008,0060)."""
    return _MODALITY.get(elements.text(dataset, "Modality"), Modality.unknown)


def age_of_patient(age: str) -> float | None:
    """An age string such as ``076Y`` or ``018M`` (PS3.5 section 6.2, AS) in years; 90 when above 89.

    Returns:
        None when it is malformed: a number without its unit says nothing.
    """
    age = age.strip().upper()
    return age_in_years(age) if _AGE.fullmatch(age) else None
