"""A folder of PNG, JPEG or NPY images with a CSV: what a clinic-side researcher starts from."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.sample import SPLITS
from data_shards.sources.images.channels import Channels
from data_shards.support.errors import DataError, nearest
from data_shards.support.files import sha256_of
from data_shards.vocabulary import Modality, Organ, Task
from finetune.labelled import LabelledImages, check_disjoint
from finetune.readers.pixels import read_image
from finetune.readers.together import read_together
from finetune.splits import stratified_folds

REQUIRED = ("file", "label")
OPTIONAL = ("split", "subject")
TEST_FOLDS = 4
"""A table without a split column gives one part in this many to the test split."""
SPLIT_SEED = 0
"""Fixes which images those are, whatever the seed of a fine-tuning: several seeds are scored on the same images."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    line: int
    file: str
    label: str
    split: str
    subject: str


def read_table(
    folder: Path,
    table: Path,
    *,
    size: int | None = None,
    organ: Organ = Organ.unknown,
    modality: Modality = Modality.unknown,
    channels: Channels = "auto",
) -> dict[str, LabelledImages]:
    """Read the images a CSV names.

    Columns: ``file`` (relative to ``folder``), ``label`` (a class name), and optionally ``split`` (train, val or test)
    and ``subject``. Without a split column a quarter is set aside for testing, stratified by class and by whole
    subjects, the same one every time. Classes are numbered in the order of their names, or of their values when all are
    integers.

    Args:
        folder: where the images are.
        table: the CSV.
        size: side in pixels to resize to; None requires that all images have the same size.
        organ: body part that the images show.
        modality: how they were made.
        channels: see :func:`finetune.readers.together.read_together`.

    Raises:
        DataError: one line naming the file and the row: a column, a label, an image is missing, unknown or unreadable,
            images differ in channels or size, a subject is in two splits.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    rows = _rows(table)
    names = _class_names(rows, table)
    where = [f"line {row.line}: {row.file}" for row in rows]
    try:
        images, digest = read_together(where, lambda position: read_image(folder / rows[position].file, size), channels)
    except DataError as error:
        raise DataError(f"{table}, {error}") from None
    whole = LabelledImages(
        name=table.stem,
        images=images,
        labels=np.array([[names.index(row.label)] for row in rows], dtype=np.int64),
        task=Task.binary if len(names) == 2 else Task.multiclass,
        classes=dict(enumerate(names)),
        keys=np.array([row.file for row in rows]),
        organ=organ,
        modality=modality,
        subjects=np.array([row.subject for row in rows]) if rows[0].subject else None,
        official=False,
        note=f"images listed in {table.name}",
        source={
            "csv_sha256": sha256_of(table),
            "pixels_sha256": digest,
        },
    )
    splits = _split(whole, rows)
    check_disjoint(splits)
    return splits


def _rows(table: Path) -> list[Row]:
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark.
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            _check_columns(columns, table)
            rows = [_row(content, columns, reader.line_num, table) for content in reader]
    except FileNotFoundError:
        raise DataError(f"{table}: no such CSV file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a readable CSV file: {error}") from None
    if not rows:
        raise DataError(f"{table}: no rows below the header")
    first_line: dict[str, int] = {}
    for row in rows:
        if first_line.setdefault(row.file, row.line) != row.line:
            raise DataError(f"{table}, line {row.line}: {row.file} is listed already in line {first_line[row.file]}")
    return rows


def _check_columns(columns: list[str], table: Path) -> None:
    for column in columns:
        if column not in REQUIRED + OPTIONAL:
            raise DataError(f"{table}: unknown column {column!r}{nearest(column, REQUIRED + OPTIONAL)}")
        if columns.count(column) > 1:
            raise DataError(f"{table}: column {column!r} occurs twice")
    for column in REQUIRED:
        if column not in columns:
            raise DataError(f"{table}: column {column!r} is missing")


def _row(content: Mapping[str | None, str | None], columns: list[str], line: int, table: Path) -> Row:
    if None in content:
        raise DataError(f"{table}, line {line}: more values than the {len(columns)} columns of the header")
    values = {column: (content[column] or "").strip() for column in columns}
    for column, value in values.items():
        if not value:
            raise DataError(f"{table}, line {line}: {column} is missing")
    if values.get("split", "train") not in SPLITS:
        raise DataError(f"{table}, line {line}: split {values['split']!r} is not one of {', '.join(SPLITS)}")
    return Row(line, values["file"], values["label"], values.get("split", ""), values.get("subject", ""))


def _class_names(rows: list[Row], table: Path) -> list[str]:
    names = {row.label for row in rows}
    if len(names) < 2:
        raise DataError(f"{table}: every label is {rows[0].label!r}; expected at least two classes")
    integers = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(names, key=int) if integers else sorted(names)


def _split(whole: LabelledImages, rows: list[Row]) -> dict[str, LabelledImages]:
    if rows[0].split:
        names = np.array([row.split for row in rows])
    else:
        names = np.where(stratified_folds(whole.strata, TEST_FOLDS, SPLIT_SEED, whole.subjects) == 0, "test", "train")
    if "train" not in names:
        raise DataError(f"{whole.name}: no image is in the train split")
    return {split: whole.select(np.flatnonzero(names == split)) for split in SPLITS if split in names}
