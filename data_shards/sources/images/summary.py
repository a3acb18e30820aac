"""What the listing of an archive says of the whole: for the dataset card and for warnings to its owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from data_shards.sample import MASK
from data_shards.sources.images.channels import common_channels
from data_shards.sources.images.channels import words as channel_words
from data_shards.sources.images.folder import own_subject
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.picture import picture_channels
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
        result.append(f"{len(burned)} images have text burned into the pixels, says their header: {_listed(burned)}")
    silent = sum(burned_in is None for _, burned_in in series)
    if silent:
        result.append(f"{silent} of {len(series)} DICOM images do not say whether text is burned into the pixels")
    result += _repeats(studies)
    alone = _without_subject(studies, config)
    if alone and config.subject != "file":
        result.append(f"{alone} of {len(studies)} studies name no subject: each file counts as a subject of its own")
    return result


def repeats_note(studies: Sequence[Study]) -> str:
    """For the dataset card: how many DICOM images share their place with others, and in what they differ."""
    differing = [place.series.differs for place in _dicom(studies) if place.series is not None and place.series.differs]
    if not differing:
        return ""
    traits = Counter(trait for differs in differing for trait in differs)
    names = ", ".join(f"{trait} ({count})" for trait, count in sorted(traits.items()))
    return f"{len(differing)} DICOM images at the same place as others are samples of their own; they differ in {names}"


def _dicom(studies: Sequence[Study]) -> list[Place]:
    return [place for study in studies for place in study.images.values() if place.series is not None]


def _repeats(studies: Sequence[Study]) -> list[str]:
    result = [f"{note}; times: first takes the first in time"] if (note := repeats_note(studies)) else []
    numbered = [place.name for place in _dicom(studies) if place.series is not None and place.series.numbered]
    if numbered:
        result.append(
            f"{len(numbered)} DICOM volumes do not say where their slices lie: instance numbers order them, "
            f"{_listed(numbered)}"
        )
    return result


def channels_of(studies: Sequence[Study], config: ImagesConfig) -> tuple[dict[str, int], list[str]]:
    """The number of channels to bring the images of each name to, where there is one; and a warning where they differ.

    The headers of pictures are looked at; of other files only reading says whether they have colour.
    """
    names = sorted({name for study in studies for name in study.images} - {MASK})
    if config.channels in (1, 3):
        return dict.fromkeys(names, int(config.channels)), []
    wanted: dict[str, int] = {}
    warnings = []
    for name in names if config.channels == "auto" else ():
        places = [study.images[name] for study in studies if name in study.images]
        counts = [picture_channels(config.root / place.path) if place.kind == "picture" else None for place in places]
        common = common_channels(counts)
        if common is None:
            continue
        wanted[name] = common
        others = [place.name for place, count in zip(places, counts, strict=True) if count not in (None, common)]
        warnings.append(
            f"{name}: {channel_words(counts)}, all become {common} (channels: keep leaves them as they are); "
            f"the {len(others)} others: {_listed(others)}"
        )
    return wanted, warnings


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _without_subject(studies: Sequence[Study], config: ImagesConfig) -> int:
    start = own_subject(config.name, "")
    return sum(study.subject.startswith(start) for study in studies)


def _is_volume(place: Place, config: ImagesConfig) -> bool:
    if place.kind == "dicom":
        return place.series is not None and max(len(place.series.paths), len(place.series.frames)) > 1
    return place.kind == "nifti" or (place.kind == "npy" and "D" in (config.axes or ""))
