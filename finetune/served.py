"""A fitted classifier behind a service: images come as the bytes of their files, and are read as ``predict`` does.

What is sent is the table that ``medformer predict --csv`` takes, with the content of a file in place of its name. It is
laid into a temporary folder, and goes from there the way that any new images go: so that the answers are the same.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.storage.scratch import scratch_folder
from data_shards.support.errors import DataError
from data_shards.support.files import finite
from data_shards.support.limits import MAX_BYTES
from finetune.cases import Cases
from finetune.classifier.predictor import Prediction
from finetune.predictions import open_classifier, rows_of
from finetune.readers import read_new
from finetune.readers.recipe import Recipe

CONTENT = "content"
"""The column that holds the file of each row, in base64."""
_DIGITS = 6
_CHUNK_BYTES = 1 << 20
_ZIP = b"PK\x03\x04"


class ServedClassifier:
    """Answers tables of images with tables of predictions."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Open a classifier.

        Raises:
            CheckpointError: there is none, or it is damaged or of a newer version.
            DataError: it was fitted to arrays, and does not know how files become images.
        """
        self._model = open_classifier(folder, device)
        recipe = self._model.record_.recipe
        if recipe is None:
            raise DataError(f"{folder}: it was fitted to arrays and does not know how files become images")
        self._recipe = Recipe.of(recipe)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict.

        Args:
            rows: a row per file. ``content`` is the file in base64: PNG, JPEG, TIFF, DICOM, NIfTI, NPY, ..., or a zip
                of the DICOM files of one series. Further columns are those of the table of ``predict --csv``, such as
                ``study``, ``image`` or ``bag``, where the classifier has several images to a case.

        Returns:
            A row per case, in the order of their first rows: ``row``, the number of that from 0, what is predicted, the
            probability of each class (or the number) in full, and the uncertainty, set or interval and abstention that
            ``predict`` writes.

        Raises:
            DataError: a row lacks its content, or an image does not fit what the classifier learned from.
        """
        if not rows:
            return []
        with scratch_folder("medformer-served-") as folder:
            self._lay_out(rows, folder)
            cases = read_new(folder / "images", self._recipe, csv=folder / "table.csv", show_paths=True)
            prediction = self._model.predictor_.predict(cases)
            return self._answers(cases, prediction)

    def _lay_out(self, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Write the files and the table that names them."""
        columns = self._recipe.options.get("columns")
        path_column = (columns.get("path") if isinstance(columns, dict) else None) or "path"
        others = [name for name in rows[0] if name not in (CONTENT, path_column)]
        (folder / "images").mkdir()
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow([path_column, *others])
        for number, row in enumerate(rows):
            name = f"{number:0{_DIGITS}d}"
            _write(_decoded(row, number), folder / "images" / name, number)
            writer.writerow([name, *("" if row.get(each) is None else str(row[each]) for each in others)])
        (folder / "table.csv").write_text(table.getvalue())

    def _answers(self, cases: Cases, prediction: Prediction) -> list[dict[str, Any]]:
        target = self._model.predictor_.target
        answers = []
        for row in rows_of(cases, prediction.probabilities, prediction=prediction, target=target):
            row |= {name: row[name] if row[name] != "" else None for name in ("uncertainty", "disagreement")}
            answers.append({"row": int(row.pop("key")[:_DIGITS]), **finite(row)})
        return answers


def _decoded(row: Mapping[str, Any], number: int) -> bytes:
    content = row.get(CONTENT)
    if isinstance(content, bytes):
        return content
    if not isinstance(content, str) or not content:
        raise DataError(f"row {number}: expected the column {CONTENT!r} with a file in base64")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"row {number}: {CONTENT!r} is not base64") from None


def _write(content: bytes, path: Path, number: int) -> None:
    """The file, or for a zip a folder with its files, under names of our own."""
    if not content.startswith(_ZIP):
        path.write_bytes(content)
        return
    path.mkdir()
    left = MAX_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for place, member in enumerate(members):
                with archive.open(member) as source, open(path / f"{place:0{_DIGITS}d}", "wb") as target:
                    while chunk := source.read(_CHUNK_BYTES):
                        left -= len(chunk)
                        if left < 0:
                            raise DataError(f"row {number}: the zip holds more than {MAX_BYTES} bytes")
                        target.write(chunk)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"row {number}: the zip cannot be read: {error}") from None
