"""A folder of images, with or without a table, through the source ``images``: what a clinic-side researcher has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_shards.intensity import BYTES, Rule, check_names, check_values, rule_of
from data_shards.prepare.document import Intensity
from data_shards.prepare.prepared import prepare
from data_shards.sample import MASK, SPLITS
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.source import Images
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Task
from finetune.cases import Cases, check_disjoint
from finetune.images import ReadPictures, Study
from finetune.origin import OWN
from finetune.readers.listed import NAMED, Listed, labelled
from finetune.readers.reading import MANY_FOLDERS, Levels, Reading, check_folder
from finetune.readers.recipe import PERCENTILES, Depth, Recipe
from finetune.readers.repeats import together
from finetune.readers.survey import Channelled, Progress
from finetune.readers.taken import opened, take, told_of

_CT_WARNING = (
    "CT is brought to 8 bits between percentiles of each image, which loses Hounsfield units; a fixed window keeps "
    "them, such as intensity.window=[40,400] of prepare for soft tissue"
)


def read_files(
    path: Path, *, csv: Path | None = None, reading: Reading | None = None, progress: Progress | None = None
) -> dict[str, Cases]:
    """Read a folder of DICOM, NIfTI, picture and NPY files, as the source ``images`` reads them.

    Every image is read and prepared once, to find what is damaged and what all have in common; the pixels are kept in
    a temporary file, so memory holds one image at a time.

    - Labels are those of the table, else the names of the sub-folders where two or more hold images. Rows without one
      are left out. With ``label: none``, or where nothing says a label, cases have none.
    - Splits are those of the table, or the folders called train, val and test where all at the top are called so. Else
      everything is in ``train``, for the caller to cross-validate.
    - Subjects are those of the table or the PatientID of DICOM files; else each case is its own. Cases with the same
      pixels count as one subject, so that they never stand on two sides.
    - Studies of one ``bag`` are one case.
    - Messages and keys say ``row 17`` or ``file 17``, never what stands there: names may be those of people.

    Args:
        path: the folder.
        csv: the table, of which paths are relative to the folder.
        reading: what else is told.
        progress: is told how many studies are read.

    Returns:
        Cases by split; ``train`` alone where none is said.

    Raises:
        DataError: one line that names the row or file: an image, a column or a path is missing or unusable, labels or
            images do not fit together, a subject is in two splits.
        ConfigError: an option is unknown.
    """
    reading = reading or Reading()
    check_folder(path, csv)
    with told_of(csv or path):
        source, config, warnings = _listed(path, csv, reading)
        has_labels = bool(source.label_names) and reading.label != "none"
        positions, left_out = labelled(source) if has_labels else (list(range(len(source))), [])
        listed = Listed.of(source, positions)
        listed.groups()  # refused before any pixel is read
        if has_labels:
            _check_labels(listed, of_folders=csv is None and reading.label == "auto")
        depths = _depths(listed, reading)
        kept = _kept(reading, depths)
        to_8_bits = {
            name: PERCENTILES if depth == "measured" and name not in kept else reading.prepare.intensity
            for name, depth in depths.items()
        }
        read = _Read(listed, reading, to_8_bits, kept)
        taken = take(
            listed,
            ReadPictures(len(positions), read),
            skip=reading.on_error == "skip",
            show_paths=reading.show_paths,
            progress=progress,
        )
        channels = taken.survey.channels(reading.channels, taken.pictures)
        labels, classes = taken.listed.labels() if has_labels else (None, {})
        if taken.warnings and has_labels:
            _check_labels(taken.listed)
        recipe = Recipe(
            data="files",
            images=taken.survey.recipes(channels, to_8_bits, depths, kept),
            preparation=reading.prepare,
            options=reading.changed_options(config),
            channels=reading.channels,
            organ=reading.organ.name,
            modality=reading.modality.name,
            task=source.card.task,
            classes=classes,
            labels=source.label_names if has_labels else (),
        )
        if Modality.ct in taken.survey.modalities and PERCENTILES in to_8_bits.values():
            warnings.append(_CT_WARNING)
        whole = Cases(
            name=csv.stem if csv is not None else config.name,
            images=Channelled(taken.pictures, channels) if taken.survey.differ(channels) else taken.pictures,
            labels=labels,
            task=Task[source.card.task],
            classes=classes,
            keys=taken.listed.keys(paths=reading.show_paths),
            organ=taken.survey.organ(reading.organ),
            modality=taken.survey.modality(reading.modality),
            subjects=taken.listed.subjects(),
            official=False,
            note=f"{OWN}: {csv.name if csv is not None else 'a folder'}",
            warnings=(*warnings, *left_out, *taken.warnings, *read.warnings()),
            rows=taken.rows,
            bags=taken.listed.bags,
            recipe=recipe.model_dump(mode="json"),
            licence=config.licence if "licence" in reading.options else "",
            groups=taken.listed.groups(),
        )
        splits = taken.listed.splits()
        whole = together(whole, splits, csv)
        return _split(whole, splits)


def _listed(path: Path, csv: Path | None, reading: Reading) -> tuple[Images, ImagesConfig, list[str]]:
    split = "auto"
    if csv is None:
        levels = Levels(path)
        split = "folders" if levels.splits else "auto"
        if reading.label == "auto" and len(levels.classes) > MANY_FOLDERS:
            raise DataError(
                f"{len(levels.classes)} sub-folders hold images: too many to be taken for classes; a table says the "
                "labels, label=folder says that they are classes, label=none that there are no labels"
            )
        if reading.label == "auto":
            label = "folder" if len(levels.classes) > 1 else "none"
            reading = reading.model_copy(update={"label": label})
    config = reading.config(path, csv, split=split)
    source, warnings = opened(config, reading.on_error)
    return source, config, warnings


def _check_labels(listed: Listed, *, of_folders: bool = False) -> None:
    """Refuse labels that teach nothing, before any pixel is read.

    Raises:
        DataError: all are the same; none is to be trained on; or sub-folders, which nobody has called classes, hold
            images of one subject each.
    """
    labels, classes = listed.labels()
    if len(np.unique(labels, axis=0)) < 2:
        expected = "two different numbers" if labels.dtype.kind == "f" else "two classes"
        raise DataError(f"all labels are the same; expected at least {expected}")
    if None not in (splits := listed.splits()) and "train" not in splits:
        raise DataError("no image is in the train split")
    if not of_folders:
        return
    subjects = listed.subjects()
    units = np.arange(len(labels)) if subjects is None else subjects
    if all(len(np.unique(units[labels[:, 0] == value])) < 2 for value in classes):
        raise DataError(
            f"each of the {len(classes)} sub-folders holds the images of one subject, so they teach nothing as "
            "classes; a table says the labels, label=folder says that they are classes all the same, label=none that "
            "there are no labels"
        )


def _kept(reading: Reading, names: Iterable[str]) -> dict[str, Rule]:
    """The rules of the images whose values are kept as they are, by name.

    Raises:
        DataError: there is no such image, or values are brought to 8 bits, too.
    """
    names = list(names)
    if reading.intensity and reading.prepare.intensity != Intensity():
        raise DataError("intensity keeps values and prepare.intensity brings them to 8 bits; give one of the two")
    check_names(reading.intensity, names)
    found = {name: rule_of(reading.intensity, name) for name in names}
    return {name: rule for name, rule in found.items() if rule is not None and rule != BYTES}


def _depths(listed: Listed, reading: Reading) -> dict[str, Depth]:
    """How deep the images of each name are; any where the user says how values become 8 bits, or how they are read.

    Raises:
        DataError: some have 8 bits and some have more; names one of each.
    """
    first: dict[str, dict[bool | None, str]] = {}
    for position in listed.positions:
        for name, has_8_bits in listed.source.has_8_bits(position).items():
            first.setdefault(name, {}).setdefault(has_8_bits, listed.source.name_of(position))
    if reading.prepare.intensity != Intensity():
        return dict.fromkeys(first, "any")
    ruled = {name for name in first if rule_of(reading.intensity, name) is not None}
    mixed = {name for name, found in first.items() if True in found and False in found}
    for name, found in first.items():
        if name in mixed - ruled:
            raise DataError(
                f"{found[True]} is a picture of 8 bits, {found[False]} holds measured values: one is taken as it is, "
                "the other scaled by its own values; "
                "intensity.percentile=[0.5,99.5] of prepare, or intensity.window=[center,width], treats all alike"
            )
    told: dict[str, Depth] = {name: "measured" if False in found else "8 bits" for name, found in first.items()}
    return told | dict.fromkeys(mixed, "any")


class _Read:
    """Reads and prepares the studies of a listing, and gathers what their files have that is worth telling."""

    def __init__(
        self, listed: Listed, reading: Reading, to_8_bits: Mapping[str, Intensity], kept: Mapping[str, Rule]
    ) -> None:
        self._listed, self._preparation = listed, reading.prepare
        self._to_8_bits, self._kept = dict(to_8_bits), dict(kept)
        self._show_paths = reading.show_paths
        self._notes: dict[str, list[str]] = {}

    def __call__(self, row: int) -> Study:
        position = self._listed.positions[row]
        name = self._listed.source.name_of(position)
        sample = self._listed.source.sample(position)
        images = {name: image for name, image in sample.images.items() if name != MASK}
        for note in dict.fromkeys(note for image in images.values() for note in image.notes):
            self._notes.setdefault(note, []).append(name)
        try:
            images = prepare(images, self._preparation, self._to_8_bits)
            for key, rule in self._kept.items():
                if key in images:
                    check_values(rule, images[key].pixels)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        for key, image in images.items():
            if image.pixels.dtype != np.uint8 and key not in self._kept:
                raise DataError(
                    f"{name}: expected values of 8 bits, 0 to 255, found {image.pixels.dtype}; "
                    "intensity.percentile=[0.5,99.5] of prepare brings all images to them"
                )
        return Study(
            {name: replace(image, measured=None, notes=()) for name, image in images.items()},
            sample.organ,
            self._listed.key(position, paths=self._show_paths),
            self._kept,
        )

    def warnings(self) -> list[str]:
        """What files have that their owner has to know, each thing once."""
        return [
            f"{len(names)} images: {note} ({', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)})"
            for note, names in self._notes.items()
        ]


def _split(whole: Cases, splits: Sequence[str | None]) -> dict[str, Cases]:
    if None in splits:
        return {"train": whole}
    names = np.array(splits)
    found = {split: whole.select(np.flatnonzero(names == split)) for split in SPLITS if split in splits}
    check_disjoint(found)
    return found
