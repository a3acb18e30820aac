"""A folder of PNG, JPEG or NPY images with a CSV: what a clinic-side researcher starts from."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from data_shards.sample import SPLITS
from data_shards.sources.images.channels import Channels
from data_shards.sources.tables.cells import MISSING, is_missing
from data_shards.sources.tables.labels import Reading, encode_labels
from data_shards.sources.tables.roles import SPLIT_NAMES, Columns, Row
from data_shards.sources.tables.roles import read_table as read_roles
from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of
from data_shards.vocabulary import Modality, Organ
from finetune.labelled import LabelledImages, check_disjoint, contiguous
from finetune.readers.pixels import read_image
from finetune.readers.together import read_together
from finetune.splits import stratified_folds

ROLES = ("path", "label", "split", "subject")
TEST_FOLDS = 4
"""A table without a split column gives one part in this many to the test split."""
SPLIT_SEED = 0
"""Fixes which images those are, whatever the seed of a fine-tuning: several seeds are scored on the same images."""
_WHOLE = re.compile(r"(\d+)\.0*", re.ASCII)
_NAMED = 5  # so many rows are named in a warning


def read_table(
    folder: Path,
    table: Path,
    *,
    size: int | None = None,
    organ: Organ = Organ.unknown,
    modality: Modality = Modality.unknown,
    channels: Channels = "auto",
    missing: Sequence[str] = MISSING,
    show_paths: bool = False,
) -> dict[str, LabelledImages]:
    """Read the images a CSV names, see :func:`~data_shards.sources.tables.csv_file.read_csv`.

    Columns: ``file`` or ``path`` (relative to ``folder``), ``label``, and optionally ``split`` (train, val or test) and
    ``subject``; others are left alone. Labels are read as by every other command, see
    :func:`~data_shards.sources.tables.labels.encode_labels`; rows without one are left out. Without a split column a
    quarter is set aside for testing, stratified by class and by whole subjects, the same one every time.

    Messages and keys say ``row 17``, never what stands there: file names and subjects may name people.

    Args:
        folder: where the images are.
        table: the CSV.
        size: side in pixels to resize to; None requires that all images have the same size.
        organ: body part that the images show.
        modality: how they were made.
        channels: see :func:`finetune.readers.together.read_together`.
        missing: spellings of no label beside the empty cell.
        show_paths: messages and keys say the file too; only where paths identify nobody.

    Raises:
        DataError: one line with the row: a column, a path or an image is missing, unknown or unreadable, images differ
            in channels or size, a subject is in two splits.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    content = read_roles(table, Columns(label=("label",)), ROLES)
    try:
        _check(content.rows, folder)
        named = [_name(row, show_paths) for row in content.rows]
        reading = Reading(missing=missing, decimal_comma=content.decimal_comma)
        labels = encode_labels([row.label for row in content.rows], named, content.label_names, reading)
        vectors = [vector for vector in labels.vectors if vector is not None]
        if len(labels.classes) < 2:
            found = "all labels are the same" if vectors else "no row has a label"
            raise DataError(f"{found}; expected at least two classes")
        rows = [row for row, vector in zip(content.rows, labels.vectors, strict=True) if vector is not None]
        where = [_name(row, show_paths) for row in rows]
        images, digest = read_together(where, lambda at: read_image(folder / _path(rows[at]), size), channels)
        indices, classes = contiguous(np.stack(vectors), labels.classes)
        warnings = (*content.warnings, *labels.warnings, *_left_out(content.rows, rows))
        whole = LabelledImages(
            name=table.stem,
            images=images,
            labels=indices,
            task=labels.task,
            classes=classes,
            keys=np.array([row.cells["path"] if show_paths else f"row {row.number}" for row in rows]),
            organ=organ,
            modality=modality,
            subjects=_numbered([row.cells["subject"] for row in rows]) if "subject" in rows[0].cells else None,
            official=False,
            note=f"images listed in {table.name}",
            source={
                "csv_sha256": sha256_of(table),
                "pixels_sha256": digest,
            },
            warnings=warnings,
        )
        splits = _split(whole, rows)
        check_disjoint(splits)
        return splits
    except DataError as error:
        raise DataError(f"{table}: {error}") from None


def _check(rows: Sequence[Row], folder: Path) -> None:
    """Refuse rows that cannot be used whatever their label says; a file is the same however its path is written.

    Raises:
        DataError: names the first of them.
    """
    first: dict[str, int] = {}
    for row in rows:
        for role in ("path", "split", "subject"):
            if role in row.cells and (not row.cells[role] or (role != "path" and is_missing(row.cells[role]))):
                raise DataError(f"{row.name}: the {'file' if role == 'path' else role} is missing")
        if "split" in row.cells and row.cells["split"].casefold() not in SPLIT_NAMES:
            raise DataError(f"{row.name}: the split is none of {', '.join(SPLITS)}")
        file = os.path.realpath(folder / _path(row))
        if first.setdefault(file, row.number) != row.number:
            raise DataError(f"{row.name}: the same file as in row {first[file]}")


def _path(row: Row) -> PurePosixPath:
    return PurePosixPath(row.cells["path"].replace("\\", "/"))


def _name(row: Row, show_paths: bool) -> str:
    return f"{row.name} ({row.cells['path']})" if show_paths else row.name


def _numbered(subjects: Sequence[str]) -> np.ndarray:
    """A number for each subject in the order of their names, which nothing needs to know.

    ``1`` and ``1.0`` are one subject, as programs write a column of numbers with a missing one; so are the two ways in
    which Unicode writes an accent.
    """
    composed = [unicodedata.normalize("NFC", subject) for subject in subjects]
    names = [whole[1] if (whole := _WHOLE.fullmatch(name)) else name for name in composed]
    return np.unique(np.array(names), return_inverse=True)[1]


def _left_out(rows: Sequence[Row], kept: Sequence[Row]) -> list[str]:
    """Which rows have no label."""
    numbers = sorted({row.number for row in rows} - {row.number for row in kept})
    if not numbers:
        return []
    some = ", ".join(map(str, numbers[:_NAMED])) + ", ..." * (len(numbers) > _NAMED)
    return [f"{len(numbers)} of {len(rows)} rows have no label and are left out: {some}"]


def _split(whole: LabelledImages, rows: Sequence[Row]) -> dict[str, LabelledImages]:
    if "split" in rows[0].cells:
        names = np.array([SPLIT_NAMES[row.cells["split"].casefold()] for row in rows])
    else:
        fold_N = stratified_folds(whole.strata, TEST_FOLDS, SPLIT_SEED, whole.subjects)
        if not fold_N.any():
            raise DataError(
                "too few images or subjects to set a part aside for testing; say the splits in a column split"
            )
        names = np.where(fold_N == 0, "test", "train")
    if "train" not in names:
        raise DataError("no image is in the train split")
    return {split: whole.select(np.flatnonzero(names == split)) for split in SPLITS if split in names}
