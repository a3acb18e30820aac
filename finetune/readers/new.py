"""New images, read exactly as those that a classifier learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_shards.format.manifest import Manifest, read_manifest
from data_shards.sample import SPLITS, Sample
from data_shards.sources.images.source import Images
from data_shards.sources.tables.cells import Spellings
from data_shards.sources.tables.roles import has_columns
from data_shards.support.errors import DataError, nearest
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.images import JoinedPictures, Pictures, ReadPictures, Study
from finetune.origin import OWN
from finetune.readers.archive import open_archive
from finetune.readers.listed import Listed
from finetune.readers.reading import Levels, Reading, check_folder
from finetune.readers.recipe import Recipe
from finetune.readers.repeats import together
from finetune.readers.shards import ShardSplit, shard_labels
from finetune.readers.survey import Progress, Survey
from finetune.readers.taken import opened, take, told_of

FOLDER = "folder"
"""What stands for the names of folders among label columns."""


def read_new(
    path: Path,
    recipe: Recipe | Mapping[str, Any],
    *,
    csv: Path | None = None,
    split: str | None = None,
    missing: Spellings | None = None,
    show_paths: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    progress: Progress | None = None,
) -> Cases:
    """Read new images with the preparation of those a classifier learned from.

    What does not fit is brought to it where that loses nothing (grey to three channels, any size where the preparation
    has one), else refused: another number of dimensions, colours for a classifier of grey, an image of a name that was
    never seen, a distance of voxels that is not known where it always was, another size where all had one, another
    depth of values.

    Labels are not needed. Where the table has the label columns, or the sub-folders have the names of the classes, they
    are read with the classes of the recipe, so that predictions can be scored.

    Args:
        path: a folder of images, a folder of shards, or a MedMNIST ``.npz``.
        recipe: of the cases that were learned from, or what it was written as.
        csv: the table that goes with a folder of images.
        split: of shards or an archive; None for all of them.
        missing: spellings of no label in the table, beside the empty cell.
        show_paths: keys and messages have names of files; only where these identify nobody.
        on_error: ``stop``, or ``skip`` to leave out what cannot be read, with a warning.
        progress: is told how many studies are read.

    Raises:
        DataError: one line with the row, file or sample: it cannot be read, or does not fit.
        ConfigError: the recipe is none.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.of(recipe)
    if csv is not None or (path.is_dir() and not (path / "manifest.json").is_file()):
        if split is not None:
            raise DataError(f"{path}: a split is for shards and archives; the table or folder names the images")
        found = _of_files(path, csv, recipe, missing, progress, show_paths=show_paths, on_error=on_error)
        return found.scored
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    read = _of_archive if path.is_file() else _of_shards
    return read(path, split, recipe, progress, show_paths=show_paths)


def read_partly(
    path: Path,
    recipe: Recipe | Mapping[str, Any],
    *,
    csv: Path | None = None,
    missing: Spellings | None = None,
    show_paths: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    progress: Progress | None = None,
) -> tuple[Cases | None, Cases | None]:
    """Read new images of which the table may give some labels.

    Without a table no label is read, whatever folders, shards and archives say.

    Args: as of :func:`read_new`, which says what is brought to the images that were learned from, and what is refused.

    Returns:
        The cases that have a label, and those that have none; None where there are none.

    Raises:
        DataError: as of :func:`read_new`.
        ConfigError: the recipe is none.
    """
    if csv is None:
        found = read_new(path, recipe, show_paths=show_paths, on_error=on_error, progress=progress)
        return None, replace(found, labels=None)
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.of(recipe)
    return _of_files(path, csv, recipe, missing, progress, show_paths=show_paths, on_error=on_error).parted


@dataclass(frozen=True)
class _Partly:
    """Cases of which some have labels.

    Attributes:
        cases: all of them, without labels.
        labels: of those that have one, in their order.
        known: which these are, bool ``(N,)``.
        read: whether labels were looked for.
    """

    cases: Cases
    labels: np.ndarray | None
    known: np.ndarray
    read: bool

    @property
    def scored(self) -> Cases:
        """With labels where every case has one; else it is said how many have none."""
        if self.known.all():
            return replace(self.cases, labels=self.labels)
        warning = f"{int((~self.known).sum())} of {len(self.known)} cases have no label: none is scored"
        return replace(self.cases, warnings=(*self.cases.warnings, warning)) if self.read else self.cases

    @property
    def parted(self) -> tuple[Cases | None, Cases | None]:
        """Those with a label, and those without."""
        labelled = replace(self.cases[self.known], labels=self.labels) if self.known.any() else None
        return labelled, None if self.known.all() else self.cases[~self.known]


def _of_files(
    path: Path,
    csv: Path | None,
    recipe: Recipe,
    missing: Spellings | None,
    progress: Progress | None,
    *,
    show_paths: bool,
    on_error: Literal["stop", "skip"],
) -> _Partly:
    check_folder(path, csv)
    with told_of(csv or path):
        reading = Reading(
            organ=Organ[recipe.organ],
            modality=Modality[recipe.modality],
            channels=recipe.channels if recipe.channels in (1, 3) else "keep",
            missing=missing,
            show_paths=show_paths,
            task=Task[recipe.task],
            label=_label(path, csv, recipe),
            options=_options(path, csv, recipe),
            on_error=on_error,
        )
        numbers = Task[recipe.task] is Task.regression
        has_labels = reading.label != "none"
        # Splits of new images mean nothing; the option keeps the column from being read.
        config = reading.config(
            path, csv, classes=recipe.classes if has_labels and not numbers else None, split="shares"
        )
        # The classifier numbered its classes itself; a number in this table is somebody else's.
        config = config.model_copy(update={"class_values": False})
        source, warnings = opened(config, reading.on_error)
        warnings = [warning for warning in warnings if not warning.startswith("folders called train and test")]
        listed = Listed.of(source, range(len(source)))

        def read(row: int) -> Study:
            position = listed.positions[row]
            sample = source.sample(position)
            key, paths = listed.key(position, paths=show_paths), _paths(source, path, position)
            study = Study(sample.images, sample.organ, key, paths=paths)
            return _brought(recipe, study, source.name_of(position), source.has_8_bits(position))

        taken = take(
            listed,
            ReadPictures(len(listed.positions), read),
            skip=on_error == "skip",
            show_paths=show_paths,
            progress=progress,
        )
        known = np.array([has_labels and source.label_of(at) is not None for at in taken.listed.case_positions])
        whole = Cases(
            name=csv.stem if csv is not None else config.name,
            images=taken.pictures,
            labels=None,
            task=Task[recipe.task],
            classes=recipe.classes,
            keys=taken.listed.keys(paths=show_paths),
            organ=taken.survey.organ(reading.organ),
            modality=taken.survey.modality(reading.modality),
            subjects=taken.listed.subjects(),
            official=False,
            note=f"{OWN}: {csv.name if csv is not None else 'a folder'}",
            warnings=(*warnings, *taken.warnings),
            rows=taken.rows,
            bags=taken.listed.bags,
            recipe=recipe.model_dump(mode="json"),
        )
        labels = taken.listed.labels()[0] if known.any() else None
        return _Partly(together(whole, None, csv), labels, known, has_labels)


def _paths(source: Images, root: Path, position: int) -> dict[str, Path]:
    """The file of each image of a study."""
    origin = source.origin(position).items()
    return {role.removeprefix("path_"): root / path for role, path in origin if role.startswith("path_")}


def _label(path: Path, csv: Path | None, recipe: Recipe) -> Any:
    """The option ``label``: whether there is something to read labels from."""
    if csv is not None:
        columns = _label_columns(recipe)
        return "auto" if columns and has_columns(csv, columns) else "none"
    if recipe.labels != (FOLDER,):
        return "none"
    levels = Levels(path)
    known = bool(levels.classes) and not levels.loose and set(levels.classes) <= set(recipe.classes.values())
    return FOLDER if known and not levels.splits else "none"


def _label_columns(recipe: Recipe) -> tuple[str, ...]:
    """The columns that say the labels of new cases; where none was learned from, the one that is called so."""
    if recipe.labels not in ((), (FOLDER,)):
        return recipe.labels
    single = Task[recipe.task] is not Task.multilabel and (
        Task[recipe.task] is not Task.regression or len(recipe.classes) == 1
    )
    return ("label",) if single and recipe.classes else ()


def _options(path: Path, csv: Path | None, recipe: Recipe) -> dict[str, Any]:
    """Further options of the source; what new cases need not say of subjects is left out where it is not there."""
    options = dict(recipe.options)
    columns = options.pop("columns", None)
    if csv is None:
        if options.get("subject") == FOLDER and Levels(path).loose:
            options.pop("subject")
        return options
    named: dict[str, Any] = dict(columns) if isinstance(columns, dict) else {}
    named.pop("groups", None)  # new cases are not scored by group
    for role in ("subject", "split", "organ", "modality"):
        if named.get(role) is not None and not has_columns(csv, [named[role]]):
            named.pop(role)
    return options | {"columns": named | {"label": _label_columns(recipe) or None}}


def _brought(recipe: Recipe, study: Study, name: str, depths: Mapping[str, bool | None] | None = None) -> Study:
    try:
        return recipe.brought(study, depths)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _of_archive(path: Path, split: str | None, recipe: Recipe, progress: Progress | None, *, show_paths: bool) -> Cases:
    del show_paths  # its keys are numbers
    source = open_archive(path)
    samples: list[Sample] = [sample for sample in source if split in (None, sample.split)]
    if not samples:
        raise DataError(f"{path}: no split {split!r}{nearest(str(split), SPLITS)}")

    def read(row: int) -> Study:
        return _brought(
            recipe, Study(samples[row].images, samples[row].organ, samples[row].key), f"{path}: {samples[row].key}"
        )

    card = source.card
    labels = np.stack([sample.label for sample in samples if sample.label is not None])
    alike = dict(card.classes) == recipe.classes and len(labels) == len(samples)
    told = _Told(
        card.name, np.array([sample.key for sample in samples]), labels if alike else None, None,
        card.official, card.note, dict(card.source_checksum), card.licence, _foreign(alike),
    )  # fmt: skip
    return _cases(told, ReadPictures(len(samples), read), recipe, Organ[card.organ], Modality[card.modality], progress)


def _of_shards(path: Path, split: str | None, recipe: Recipe, progress: Progress | None, *, show_paths: bool) -> Cases:
    manifest = read_manifest(path)
    if split is not None and split not in manifest.splits:
        raise DataError(f"{path}: no split {split!r}{nearest(split, manifest.splits)}")
    parts = [
        ShardSplit.of(path, name, manifest, show_paths=show_paths)
        for name in manifest.splits
        if split in (None, name) and manifest.splits[name].samples
    ]
    card = manifest.card

    def reader(part: ShardSplit) -> Callable[[int], Study]:
        return lambda row: _brought(recipe, part.study(row), f"{path}: {part.keys[row]}")

    labels, alike = None, True
    if all(len(part.labelled) == len(part) for part in parts):
        labels, classes = shard_labels(np.concatenate([part.label_NL for part in parts]), card, path)
        alike = classes == recipe.classes and Task[card.task].name == recipe.task
    told = _Told(
        card.name, np.concatenate([part.keys for part in parts]), labels if alike else None,
        np.concatenate([part.subjects for part in parts]), card.official, card.note,
        {**card.source_checksum, "manifest_sha256": manifest.digest}, card.licence,
        (*_foreign(alike), *_other_rules(recipe, manifest)),
    )  # fmt: skip
    pictures = JoinedPictures([ReadPictures(len(part), reader(part)) for part in parts])
    return _cases(told, pictures, recipe, Organ[card.organ], Modality[card.modality], progress)


@dataclass(frozen=True)
class _Told:
    """What an archive or shards say of themselves."""

    name: str
    keys: np.ndarray
    labels: np.ndarray | None
    subjects: np.ndarray | None
    official: bool
    note: str
    source: dict[str, str]
    licence: str
    warnings: tuple[str, ...]


def _other_rules(recipe: Recipe, manifest: Manifest) -> tuple[str, ...]:
    """Where shards say another rule than that of the classifier, by which they are read."""
    return tuple(
        f"the shards say of {name}: {manifest.intensity[name].words}; the classifier reads it as it learned: "
        f"{image.rule.words}"
        for name, image in recipe.images.items()
        if name in manifest.intensity and manifest.intensity[name] != image.rule
    )


def _foreign(alike: bool) -> tuple[str, ...]:
    return () if alike else ("the labels are of other classes than those learned from: none is scored",)


def _cases(
    told: _Told, pictures: Pictures, recipe: Recipe, organ: Organ, modality: Modality, progress: Progress | None
) -> Cases:
    Survey.of(pictures, told.keys.tolist(), progress=progress)
    return Cases(
        images=pictures,
        task=Task[recipe.task],
        classes=recipe.classes,
        organ=organ,
        modality=modality,
        recipe=recipe.model_dump(mode="json"),
        **vars(told),
    )
