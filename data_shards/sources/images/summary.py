"""What the listing of an archive says of the whole: for the dataset card and for warnings to its owner."""

from __future__ import annotations

from collections.abc import Sequence

from data_shards.sources.images.folder import own_subject
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.study import Place, Study

_NAMED = 10  # so many items are named in a warning


def split_rule(studies: Sequence[Study], config: ImagesConfig) -> str:
    """How splits and subjects were decided."""
    alone = _without_subject(studies, config)
    subjects = "as the archive names them"
    if alone:
        subjects = f"{alone} of {len(studies)} studies name none and count as one subject for each file"
    given = all(study.split is not None for study in studies)
    origin = "the top folders" if config.split == "folders" else "the table"
    return f"{f'given by {origin}' if given else config.shares.rule}; subjects: {subjects}"


def dimensionality(studies: Sequence[Study], config: ImagesConfig) -> str:
    """Volumetric when most images will be volumes, by what is known before they are read."""
    places = [place for study in studies for place in study.images.values()]
    volumes = sum(_is_volume(place, config) for place in places)
    return "volumetric" if 2 * volumes > len(places) else "planar"


def warnings_of(studies: Sequence[Study], config: ImagesConfig) -> list[str]:
    """What the owner of the archive has to know before giving the shards to anybody."""
    result = []
    series = [
        (place.name, place.series.burned_in)
        for study in studies
        for place in study.images.values()
        if place.series is not None
    ]
    burned = [name for name, burned_in in series if burned_in]
    if burned:
        names = ", ".join(burned[:_NAMED]) + (", ..." if len(burned) > _NAMED else "")
        result.append(f"{len(burned)} images have text burned into the pixels, says their header: {names}")
    silent = sum(burned_in is None for _, burned_in in series)
    if silent:
        result.append(f"{silent} of {len(series)} DICOM images do not say whether text is burned into the pixels")
    alone = _without_subject(studies, config)
    if alone and config.subject != "file":
        result.append(f"{alone} of {len(studies)} studies name no subject: each file counts as a subject of its own")
    return result


def _without_subject(studies: Sequence[Study], config: ImagesConfig) -> int:
    start = own_subject(config.name, "")
    return sum(study.subject.startswith(start) for study in studies)


def _is_volume(place: Place, config: ImagesConfig) -> bool:
    if place.kind == "dicom":
        return place.series is not None and len(place.series.paths) > 1
    return place.kind == "nifti" or (place.kind == "npy" and "D" in (config.axes or ""))
