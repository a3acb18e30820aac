"""How the tests of the source look at it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data_shards.sample import Sample
from data_shards.sources.adni.source import ADNI, Options

SALT = "a salt of the tests"


def read(root: Path, **options: Any) -> ADNI:
    return ADNI(Options(root=root, **options), salt=SALT)


def visits(source: ADNI) -> list[tuple[str, str]]:
    """PTID and visit of each sample, sorted."""
    origins = [source.origin(position) for position in range(len(source))]
    return sorted((origin["ptid"], origin["visit"]) for origin in origins)


def sample_of(source: ADNI, ptid: str, visit: str) -> Sample:
    wanted = [
        position
        for position in range(len(source))
        if (source.origin(position)["ptid"], source.origin(position)["visit"]) == (ptid, visit)
    ]
    assert len(wanted) == 1
    return source.sample(wanted[0])


def taken(sample: Sample) -> dict[str, float]:
    """The image identifiers that the voxels hold, by image name."""
    assert all((image.pixels == image.pixels.flat[0]).all() for image in sample.images.values())
    return {name: float(image.pixels.flat[0]) for name, image in sample.images.items()}


def labels(source: ADNI) -> dict[tuple[str, str], float | None]:
    found = {}
    for position in range(len(source)):
        origin, sample = source.origin(position), source.sample(position)
        found[origin["ptid"], origin["visit"]] = None if sample.label is None else float(sample.label[0])
    return found


def reasons(source: ADNI) -> Counter[str]:
    return Counter(entry.reason for entry in source.skipped)


def same(one: Sample, other: Sample) -> bool:
    """Whether two samples agree in everything."""
    facts = [(s.key, s.subject, s.split, s.label.tolist(), dict(s.attributes), s.task) for s in (one, other)]  # type: ignore[union-attr]
    images = [
        {name: (i.pixels.tobytes(), i.pixels.shape, i.spacing_mm, i.modality) for name, i in s.images.items()}
        for s in (one, other)
    ]
    return facts[0] == facts[1] and images[0] == images[1]
