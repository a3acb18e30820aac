"""Shards and pretraining runs of a study, made by the product's own functions and kept where they were made."""

from __future__ import annotations

import csv
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import yaml

from data_shards.format.manifest import read_manifest
from data_shards.sources.base import Source
from data_shards.sources.medmnist.source import MedMNIST
from data_shards.writing.writer import write_dataset

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("MEDFORMER_SHARED_DATA") or ROOT.parent / "shared" / "data")
PLANES = ("breastmnist", "retinamnist", "pneumoniamnist")
VOLUMES = ("adrenalmnist3d",)
REASSEMBLED = "reassembled from the published images; their order is not that of the published file"
VIEWS: dict[str, Any] = {
    "crop": {"scale": [0.3, 1.0]},
    "brightness": {"strength": 0.05},
    "contrast": {"strength": 0.15},
    "gamma": {"strength": 0.1},
    "colour": {"strength": 0.05},
    "blur": {"probability": 0.1},
    "noise": {"strength": 0.02},
}
SHAPES: dict[str, Any] = {
    "crop": {"scale": [0.5, 1.0]},
    "rotation": {"tilt_degrees": 15.0},
    "noise": {"strength": 0.02},
    **dict.fromkeys(("flip", "brightness", "contrast", "gamma", "colour")),
}
"""Views of black and white shapes, left and right ones: nothing but where they are cut, turned and tilted."""


def source(name: str) -> Source:
    """A MedMNIST set from the folder of real images."""
    if name == "pneumoniamnist":
        return MedMNIST(name, file=DATA / "derived" / "pneumoniamnist_reassembled.npz", unofficial=REASSEMBLED)
    return MedMNIST(name, file=DATA / "medmnist" / f"{name}.npz")


def shards(folder: Path, given: Source) -> Path:
    """The shards of a source in ``folder``, written unless they are there."""
    place = folder / given.card.name
    if not (place / "manifest.json").is_file():
        write_dataset(given, place)
    return place


def hippocampus(
    folder: Path, held_out: int = 67, size: tuple[int, int, int] = (32, 48, 32), name: str = "hippocampus"
) -> tuple[Path, list[Path]]:
    """Shards of the brain volumes at 1 mm without some subjects, and the files of those that were held out.

    Which they are follows from a hash of the file's name. The shards are made by the command that users have.

    Args:
        folder: shards go into ``shards`` in it.
        held_out: how many subjects.
        size: voxels of each volume, cut around the middle.
        name: of the dataset.
    """
    root = (DATA / "hippocampus" / "images").resolve()
    files = sorted(root.glob("*.nii.gz"))
    held = sorted(files, key=lambda path: sha256(path.name.encode()).hexdigest())[:held_out]
    if not (folder / "shards" / name / "manifest.json").is_file():
        table = folder / f"{name}.csv"
        with table.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(("path", "split"))
            rows.writerows((path.name, "test" if path in held else "train") for path in files)
        options = [f"root={root}", f"table={table}", "columns.path=path", "columns.split=split", f"name={name}"]
        options += ["organ=brain", "modality=mri", "label=none", "prepare.spacing_mm=1", f"prepare.size={list(size)}"]
        options += ["prepare.intensity.percentile=[1,99]", "--out", str(folder / "shards")]
        subprocess.run([sys.executable, "-m", "medformer", "shards", "build", "images", *options], cwd=ROOT, check=True)
    return folder / "shards" / name, held


def blocks(folder: Path, voxels: int = 24, least: float = 0.4) -> Path:
    """Shards of a head cut into blocks: what a volume of tissue may look like, from nearly 700 places of it.

    A T1-weighted series of one person and an average of many (ICBM 152), both with voxels of 0.7 mm, are cut into
    blocks side by side; those stay of which tissue is the ``least`` share. All are for training.
    """
    place = folder / "shards" / "head-blocks"
    if (place / "manifest.json").is_file():
        return place
    images = folder / "head-blocks"
    images.mkdir(parents=True, exist_ok=True)
    for name, head, spacing_mm in _heads():
        low, high = np.percentile(head, [1, 99.5])
        tissue = head > low + 0.12 * (high - low)
        for corner in itertools.product(*(range(0, length - voxels + 1, voxels) for length in head.shape)):
            cut = tuple(slice(start, start + voxels) for start in corner)
            if tissue[cut].mean() > least:
                file = images / f"{name}-{'-'.join(map(str, corner))}.nii.gz"
                nib.save(nib.Nifti1Image(head[cut], np.diag([*spacing_mm, 1.0])), file)
    options = [f"root={images}", "name=head-blocks", "organ=brain", "modality=mri", "label=none"]
    options += ["shares.train=1", "shares.val=0", "shares.test=0"]
    options += [f"prepare.size={voxels}", "prepare.intensity.percentile=[1,99]", "--out", str(folder / "shards")]
    subprocess.run([sys.executable, "-m", "medformer", "shards", "build", "images", *options], cwd=ROOT, check=True)
    return place


def _heads() -> Iterator[tuple[str, np.ndarray, tuple[float, ...]]]:
    """Name, voxels and their spacing."""
    read = [pydicom.dcmread(path) for path in sorted((DATA / "dicom_mr_series").rglob("*.dcm"))]
    slices = sorted(read, key=lambda each: float(each.ImagePositionPatient[2]))
    first, second = (np.array(each.ImagePositionPatient, dtype=float) for each in slices[:2])
    spacing_mm = (float(np.linalg.norm(second - first)), *map(float, slices[0].PixelSpacing))
    yield "series", np.stack([each.pixel_array for each in slices]).astype(np.float32), spacing_mm
    average = nib.load(DATA / "nifti" / "spm152.nii.gz")
    yield "average", average.get_fdata(dtype=np.float32), tuple(map(float, average.header.get_zooms()))


def document(
    out: Path,
    datasets: list[Path],
    seed: int,
    steps: int,
    batch_size: int,
    model: Mapping[str, Any],
    views: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """SimCLR on medformer_nano; a dataset's share of the steps goes with the root of its size.

    The stem is the one that was the default when the figures of the studies were measured, with eight channels at full
    resolution instead of 32, on which volumes would spend most of their time.

    Args:
        out: folder of the run.
        datasets: shards.
        seed: of weights, order and views.
        steps: optimizer steps.
        batch_size: images of a step.
        model: entries of the section ``model`` beside the name; ``kwargs`` are added to those of the study.
        views: what is to differ from :data:`VIEWS`.
    """
    sizes = [read_manifest(path).splits["train"].samples for path in datasets]
    kwargs = {"stem": "conv", "stride": 4, "stem_width": 8, **model.get("kwargs", {})}
    return {
        "out": str(out),
        "seed": seed,
        "data": {
            "datasets": [
                {"path": str(path), "weight": round(math.sqrt(size), 2)}
                for path, size in zip(datasets, sizes, strict=True)
            ],
            "batch_size": batch_size,
        },
        "model": {"name": "medformer_nano", **model, "kwargs": kwargs},
        "views": {**VIEWS, **(views or {})},
        "objectives": {"simclr": {"temperature": 0.2}},
        "optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 0.05},
        "schedule": {"epochs": 10_000, "max_steps": steps},
        "checkpoint": {"every_steps": 100},
        "cluster": {"workers": 1, "threads_per_worker": int(os.environ.get("OMP_NUM_THREADS", "1"))},
    }


def pretrained(run: dict[str, Any]) -> Path:
    """The bundle of a run; it is trained, or goes on from its newest checkpoint, unless the bundle is there.

    Raises:
        CalledProcessError: the run failed; its last lines are in ``log.txt`` of its folder.
    """
    out = Path(run["out"])
    if not (out / "bundle" / "config.json").is_file():
        out.mkdir(parents=True, exist_ok=True)
        config = out.parent / f"{out.name}.yaml"
        config.write_text(yaml.safe_dump(run, sort_keys=False))
        command = [sys.executable, "-m", "pretrain", str(config), "--resume"]
        with (out.parent / f"{out.name}.log").open("w") as log:
            subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=subprocess.STDOUT)
    return out / "bundle"
