"""What is said of instances, as files: a table of the studies of bags, or a map of the tokens of each image."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.files import write_atomic
from finetune.cases import Cases
from finetune.classifier.instances import CaseInstances
from finetune.tables import as_csv, said_columns
from finetune.targets import Target

INSTANCES_FILE = "instances.csv"


def write_instances(folder: Path, cases: Cases, target: Target, said: Iterable[CaseInstances]) -> None:
    """Write what is said of the instances of cases into a folder.

    ``instances.csv`` has a row per study: the key of its case as in the table of predictions, its number from 1, what
    it is called, its images and their modalities, a column per class, and its weight where the pooling has weights. Of
    tokens it has a row per image, with the name of an ``.npz`` beside it: ``probabilities`` ``(C, *grid)``, ``scores``
    ``(O, *grid)`` on the scale of the head's outputs, ``weights`` ``(*grid)`` where there are any, and ``classes``,
    ``key``, ``study`` and ``image``. Where the file of a volume says where it lies in the patient, there is a
    ``.nii.gz`` of the same name: the probabilities, one class after the other, each cell in its place.

    Args:
        folder: exists, is filled.
        cases: whose they are.
        target: names the classes.
        said: of each case, in their order; asked for one by one.
    """
    rows: list[dict[str, Any]] = []
    for key, case in zip(cases.keys.tolist(), said, strict=True):
        if case.kind == "study":
            rows += _studies(str(key), case, target)
            continue
        for each in case.maps:
            stem = f"{len(rows) + 1:06d}"
            arrays: dict[str, Any] = {
                "probabilities": each.of(case.probabilities_HC).astype(np.float32),
                "scores": each.of(case.scores_HO),
                "classes": np.array(target.classes),
                "key": np.array(str(key)),
                "study": np.array(each.study + 1),
                "image": np.array(each.image),
            }
            if case.weights_H is not None:
                arrays["weights"] = each.of(case.weights_H[:, None])[0]
            content = io.BytesIO()
            np.savez_compressed(content, **arrays)
            (folder / f"{stem}.npz").write_bytes(content.getvalue())
            if each.affine is not None:
                _write_nifti(folder / f"{stem}.nii.gz", arrays["probabilities"], each.affine)
            told = case.studies[each.study]
            rows.append(
                {
                    "key": str(key),
                    "study": each.study + 1,
                    "name": told.name,
                    "image": each.image,
                    "modality": told.modalities[each.image],
                    "file": f"{stem}.npz",
                    "grid": "x".join(map(str, each.grid)),
                }
            )
    write_atomic(folder / INSTANCES_FILE, as_csv(rows))


def _write_nifti(path: Path, probabilities: np.ndarray, affine: np.ndarray) -> None:
    """``(C, D, H, W)`` as a NIfTI-1 volume of C frames."""
    import nibabel

    volume = nibabel.Nifti1Image(np.moveaxis(probabilities, 0, -1), affine)
    volume.header.set_xyzt_units("mm")
    nibabel.save(volume, path)


def _studies(key: str, case: CaseInstances, target: Target) -> list[dict[str, Any]]:
    rows = []
    for number, values_C in enumerate(case.probabilities_HC):
        told = case.studies[number]
        row: dict[str, Any] = {
            "key": key,
            "study": number + 1,
            "name": told.name,
            "image": " ".join(told.modalities),
            "modality": " ".join(told.modalities.values()),
        }
        row |= said_columns(target, values_C)
        if case.weights_H is not None:
            row["weight"] = float(case.weights_H[number])
        rows.append(row)
    return rows
