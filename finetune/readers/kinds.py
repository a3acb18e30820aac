"""What stands at a path, and what can be told of it before an image is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_shards.format.manifest import read_manifest
from data_shards.prepare.document import Preparation
from data_shards.sample import SPLITS
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.readers.archive import open_archive
from finetune.readers.reading import Levels, check_folder, short_name

Kind = Literal["archive", "shards", "files"]


@dataclass(frozen=True)
class Outline:
    """A dataset that has not been read.

    Attributes:
        kind: what it is kept in.
        name: as :attr:`finetune.cases.Cases.name` will be.
        splits: those that it has; None where its table says them.
        task: what its labels are; unknown of a folder of images.
    """

    kind: Kind
    name: str
    splits: tuple[str, ...] | None
    task: Task = Task.unknown


def kind_at(path: Path, csv: Path | None) -> Kind:
    """Whether a MedMNIST archive, a folder of shards or a folder of images is to be read.

    Args:
        path: of the dataset.
        csv: the table that goes with it; only a folder of images has one.

    Raises:
        DataError: nothing is there, or a table is given with something that needs none.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if csv is None and path.is_file():
        return "archive"
    if csv is None and (path / "manifest.json").is_file():
        return "shards"
    check_folder(path, csv)
    return "files"


def check_told(
    path: Path,
    kind: Kind,
    *,
    size: int | tuple[int, ...] | None,
    organ: Organ,
    modality: Modality,
    task: Task,
    prepare: Mapping[str, Any] | Preparation | None,
    options: Mapping[str, Any] | None,
    label: str,
    intensity: bool,
) -> None:
    """Refuse to be told what archives and shards say themselves.

    Args: as of :func:`finetune.readers.read_cases`, and

        kind: of what is at the path.
        intensity: whether rules of intensity are given.

    Raises:
        DataError: names what cannot be given.
    """
    if kind == "files":
        return
    told = {
        "a size": size is not None,
        "an organ": organ != Organ.unknown,
        "a modality": modality != Modality.unknown,
        "a task": task != Task.unknown,
        "a preparation": prepare is not None,
        "options": bool(options),
        "labels of folders": label == "folder",
    }
    for what, is_told in told.items():
        if is_told:
            raise DataError(f"{path}: {what} can be given for a folder of images only")
    if kind == "archive" and intensity:
        raise DataError(f"{path}: its values have 8 bits; an intensity is for shards and folders of images")


def outline(path: Path, csv: Path | None) -> Outline:
    """What a dataset will be called and which splits it will have.

    Of an archive the digest is computed and the labels are read, of shards the manifest is read, and of a folder
    without a table the names of its files: no image is decoded.

    Args:
        path: as :func:`finetune.readers.read_cases` takes it.
        csv: likewise.

    Raises:
        DataError: it is not there, is damaged, or the table does not go with it.
    """
    kind = kind_at(path, csv)
    if kind == "archive":
        card = open_archive(path).card
        return Outline(kind, card.name, SPLITS, Task[card.task])
    if kind == "shards":
        manifest = read_manifest(path)
        splits = tuple(split for split, content in manifest.splits.items() if content.samples)
        return Outline(kind, manifest.card.name, splits, Task[manifest.card.task])
    if csv is not None:
        return Outline(kind, csv.stem, None)
    tops = {entry.name for entry in path.iterdir() if entry.is_dir()}
    splits = tuple(split for split in SPLITS if split in tops) if Levels(path).splits else ("train",)
    return Outline(kind, short_name(path.resolve().name), splits)
