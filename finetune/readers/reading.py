"""What can be told of a folder of images, and what a folder without a table says by its sub-folders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_shards.format.manifest import read_manifest
from data_shards.intensity import IntensityRules
from data_shards.prepare.document import Preparation
from data_shards.sample import SPLITS
from data_shards.sources.images.array import array_header
from data_shards.sources.images.channels import Channels
from data_shards.sources.images.folder import list_files, outside
from data_shards.sources.images.kinds import kind_of
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.tables.cells import Spellings
from data_shards.sources.tables.roles import Columns, read_table
from data_shards.support.documents import Document, parse
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task

_OWN = frozenset((
    "root", "table", "name", "label", "split", "task", "organ", "modality", "channels", "missing", "show_paths",
    "salt_file", "shares", "title", "homepage", "version",
))  # fmt: skip
"""Options of the source that are given in another way here, or mean nothing."""

MANY_FOLDERS = 20
"""More sub-folders than this are rather patients than classes, unless the user says so."""


class Reading(Document):
    """What a folder of images needs beside its path."""

    organ: Organ = Field(Organ.unknown, description="body part shown, unless the table says it")
    modality: Modality = Field(Modality.unknown, description="how images were made, unless table or header say it")
    channels: Channels = Field("auto", description="as of the source images")
    missing: Spellings | None = Field(None, description="spellings of no label; as of the source images")
    show_paths: bool = Field(False, description="keys and messages have names of files; only if these name nobody")
    task: Task = Field(Task.unknown, description="how labels are to be read; unknown: by what they look like")
    label: Literal["auto", "folder", "none"] = Field(
        "auto", description="auto: the table's column, else sub-folders where there are several; none: new cases"
    )
    prepare: Preparation = Field(Preparation(), description="what is done to every study")
    intensity: IntensityRules = Field(
        {}, description="rules by which values that are kept as they are become the range of the network"
    )
    options: dict[str, Any] = Field({}, description="further options of the source images")
    on_error: Literal["stop", "skip"] = Field("stop", description="skip leaves out what cannot be read, with a warning")

    def config(
        self, folder: Path, csv: Path | None, *, classes: Mapping[int, str] | None = None, split: str = "auto"
    ) -> ImagesConfig:
        """The options of the source ``images``.

        Args:
            folder: of the images.
            csv: the table that goes with them.
            classes: names of the label values, where they are known.
            split: the option of that name.

        Raises:
            DataError: an option is unknown, or is given by another name here.
        """
        if taken := sorted(set(self.options) & _OWN):
            raise DataError(f"option {taken[0]} is not one of reading images for a classifier")
        content: dict[str, Any] = dict(self.options)
        columns = content.get("columns") or {}
        columns = columns.model_dump() if isinstance(columns, Columns) else dict(columns)
        if csv is None and any(columns.values()):
            raise DataError("columns are named and there is no table")
        if csv is not None and self.label != "none":
            columns["label"] = columns.get("label") or ("label",)
        else:
            columns.pop("label", None)
        if "axes" not in content:
            content["axes"] = default_axes(_arrays(folder, csv, columns.get("path")))
        return parse(
            ImagesConfig,
            content
            | {
                "root": folder,
                "table": csv,
                "columns": columns,
                "name": short_name(csv.stem if csv is not None else folder.resolve().name),
                "organ": self.organ.name,
                "modality": self.modality.name,
                "task": self.task.name,
                "classes": dict(classes) if classes else content.get("classes"),
                # The name of a folder is never empty: what looks like a missing value there is a class.
                "missing": () if self.label == "folder" else self.missing,
                "label": self.label,
                "split": split,
                "channels": self.channels,
                "show_paths": self.show_paths,
            },
            "options",
        )

    def changed_options(self, config: ImagesConfig) -> dict[str, Any]:
        """The further options of a resolved configuration that differ from the default, as JSON types."""
        given = config.model_dump(mode="json", include=set(ImagesConfig.model_fields) - _OWN - {"classes", "licence"})
        default = {name: field.get_default() for name, field in ImagesConfig.model_fields.items() if name in given}
        default["columns"] = Columns().model_dump(mode="json")
        return {name: value for name, value in given.items() if value != default[name]}


class Levels:
    """What the folders of images mean where no table says it.

    Args:
        folder: of the images.

    Attributes:
        splits: all folders at the top are called train, val or test.
        loose: images lie beside these folders.
        classes: names of the folders below, or at the top, that hold images.
    """

    def __init__(self, folder: Path) -> None:
        paths = [path for path in list_files(folder)[0] if not outside(folder, path)]
        self.loose, tops = _grouped(folder, paths)
        self.splits = not self.loose and bool(tops) and set(tops) <= set(SPLITS)
        self.classes = tuple(sorted(tops))
        if self.splits:
            below = [path.partition("/") for path in paths]
            inner = {name for top in tops for name in _inner(folder, top, [rest for at, _, rest in below if at == top])}
            self.classes = tuple(sorted(inner))


def check_folder(path: Path, csv: Path | None) -> None:
    """Refuse what is no folder of images, and a table beside what needs none.

    Raises:
        DataError: there is no such folder; or a table is given with a single file, or with a folder of shards.
    """
    if csv is not None and path.is_file():
        raise DataError(f"{path}: a single file; a table (csv) is for a folder of images, archives have labels")
    if not path.is_dir():
        raise DataError(f"{path}: no such folder of images")
    if csv is not None and _are_shards(path):
        raise DataError(f"{path}: a folder of shards; a table (csv) is for a folder of images, shards have labels")


def _are_shards(folder: Path) -> bool:
    """Whether a folder has a manifest of shards; other programs call files of theirs so, too."""
    try:
        read_manifest(folder)
    except DataError:
        return False
    return True


def _inner(folder: Path, top: str, paths: Sequence[str]) -> list[str]:
    return list(_grouped(folder / top, paths)[1])


def _grouped(folder: Path, paths: Iterable[str]) -> tuple[bool, list[str]]:
    """Whether an image lies in the folder itself, and the sub-folders that hold one."""
    below: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        top, slash, _ = path.partition("/")
        below[top if slash else ""].append(path)
    holding = [top for top, members in below.items() if any(kind_of(folder / path)[0] for path in members)]
    return "" in holding, [top for top in holding if top]


def default_axes(files: Iterable[Path]) -> str | None:
    """What the axes of NPY arrays are where nobody says it and their shapes leave no choice.

    Four axes are ``C,D,H,W``. Three are a picture with one channel or three at the end, or at the beginning. All arrays
    must agree; else the option ``axes`` is to be given.
    """
    shapes = [shape for path in files if (shape := _shape(path)) is not None]
    if not shapes:
        return None
    if all(len(shape) == 4 for shape in shapes):
        return "CDHW"
    if all(len(shape) == 3 for shape in shapes):
        if all(shape[-1] in (1, 3) for shape in shapes):
            return "HWC"
        if all(shape[0] in (1, 3) for shape in shapes):
            return "CHW"
    return None


def _arrays(folder: Path, csv: Path | None, column: str | None) -> list[Path]:
    """The NPY files of the table, or of the folder; none where these cannot be read, which the source says."""
    try:
        if csv is None:
            paths = list_files(folder)[0] if folder.is_dir() else []
        else:
            rows = read_table(csv, Columns(path=column), ("path",)).rows
            paths = [path for row in rows if not outside(folder, path := row.cells["path"].replace("\\", "/"))]
    except DataError:
        return []
    return [folder / path for path in paths if path.lower().endswith(".npy")]


def _shape(path: Path) -> tuple[int, ...] | None:
    try:
        shape = array_header(path)[0]
    except DataError:
        return None  # reading it says what is wrong
    return shape if len(shape) > 2 else None


def short_name(name: str) -> str:
    """A name of a file or folder as that of a dataset, as the source takes it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).lstrip("_-") or "images"
