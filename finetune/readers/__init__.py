"""Reading images for a classifier: one file per kind of source, and the function that tells the kinds apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_shards.intensity import Rule
from data_shards.prepare.document import Preparation
from data_shards.sources.images.channels import Channels
from data_shards.support.documents import parse
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.readers.archive import read_archive
from finetune.readers.arrays import array_recipe
from finetune.readers.files import read_files
from finetune.readers.kinds import Outline, check_told, kind_at, outline
from finetune.readers.new import read_new, read_partly
from finetune.readers.reading import Reading
from finetune.readers.recipe import Recipe
from finetune.readers.shards import read_shards
from finetune.readers.survey import Progress


def read_cases(
    path: Path,
    *,
    csv: Path | None = None,
    size: int | tuple[int, ...] | None = None,
    organ: Organ = Organ.unknown,
    modality: Modality = Modality.unknown,
    channels: Channels = "auto",
    missing: Sequence[str] | None = None,
    show_paths: bool = False,
    task: Task = Task.unknown,
    prepare: Mapping[str, Any] | Preparation | None = None,
    intensity: Mapping[str, Rule] | None = None,
    options: Mapping[str, Any] | None = None,
    label: Literal["auto", "folder", "none"] = "auto",
    on_error: Literal["stop", "skip"] = "stop",
    progress: Progress | None = None,
) -> dict[str, Cases]:
    """The cases of a dataset by split; all are in ``train`` where nothing says a split.

    Args:
        path: a MedMNIST ``.npz``, a folder of shards, or a folder of images, see
            :func:`finetune.readers.files.read_files`.
        csv: the table that goes with a folder of images.
        size: that images of a folder are resized to, along each axis; short for ``size`` and ``fit: resize`` of
            ``prepare``.
        organ: body part that the images of a folder show; archives and shards say it themselves.
        modality: how the images of a folder were made; archives and shards say it themselves.
        channels: 1 or 3 to bring the images of a folder to; ``auto`` does so where grey and colour are mixed.
        missing: spellings of no label in the table, beside the empty cell.
        show_paths: keys and messages have names of files and keys of foreign tars; only where these identify nobody.
        task: how the labels of a folder of images are to be read; unknown: by what they look like.
        prepare: what is done to the images of a folder, see :class:`~data_shards.prepare.document.Preparation`.
        intensity: rules by image name, by which values that are kept as they are become the range of the network; of
            shards in place of those of the manifest. Without one those of a folder of images go to 8 bits.
        options: further options of the source ``images`` for a folder, such as ``columns`` or ``frames``.
        label: ``folder`` takes sub-folders for classes, ``none`` reads no label; ``auto`` takes those of the table,
            else sub-folders where there are several.
        on_error: ``skip`` leaves out images of a folder that cannot be read, with a warning.
        progress: is told how many studies are read, and of how many.

    Raises:
        DataError: nothing readable is there, what is there is damaged, or what only a folder of images can be told is
            told of something else.
        ConfigError: an option or a preparation is unknown or of the wrong type.
    """
    kind = kind_at(path, csv)
    check_told(
        path,
        kind,
        size=size,
        organ=organ,
        modality=modality,
        task=task,
        prepare=prepare,
        options=options,
        label=label,
        intensity=bool(intensity),
    )
    if kind == "archive":
        return read_archive(path, labelled=label != "none")
    if kind == "shards":
        return read_shards(
            path, show_paths=show_paths, labelled=label != "none", intensity=intensity, progress=progress
        )
    reading = Reading(
        organ=organ,
        modality=modality,
        channels=channels,
        missing=None if missing is None else tuple(missing),
        show_paths=show_paths,
        task=task,
        label=label,
        prepare=_preparation(prepare, size),
        intensity=dict(intensity or {}),
        options=dict(options or {}),
        on_error=on_error,
    )
    return read_files(path, csv=csv, reading=reading, progress=progress)


def _preparation(given: Mapping[str, Any] | Preparation | None, size: int | tuple[int, ...] | None) -> Preparation:
    """What is done to every study.

    Raises:
        ConfigError: an option is unknown or of the wrong type.
        DataError: the size is said twice.
    """
    preparation = given if isinstance(given, Preparation) else parse(Preparation, dict(given or {}), "prepare")
    if size is None:
        return preparation
    if preparation.size is not None:
        raise DataError("the size is given twice, by itself and as size of prepare")
    return parse(Preparation, preparation.model_dump() | {"size": size, "fit": "resize"}, "prepare")


__all__ = [
    "Outline",
    "Reading",
    "Recipe",
    "array_recipe",
    "check_told",
    "kind_at",
    "outline",
    "read_archive",
    "read_cases",
    "read_files",
    "read_new",
    "read_partly",
    "read_shards",
]
