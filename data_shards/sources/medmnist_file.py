"""Finding, downloading and reading the npz archive of a MedMNIST set."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.errors import DataError

_CHUNK_BYTES = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)


def fetch(name: str, info: Mapping[str, Any], places: Sequence[Path], *, download: bool) -> Path:
    """The archive of ``name`` in the first of ``places`` that has it, else downloaded into the first place.

    The download goes to a hidden folder beside its place and is moved there when complete and verified.

    Raises:
        DataError: the archive is nowhere and cannot be downloaded; the message names the places.
    """
    for place in places:
        if (place / f"{name}.npz").is_file():
            return place / f"{name}.npz"
    looked_in = ", ".join(str(place) for place in places)
    missing = f"{name}: no {name}.npz in {looked_in}"
    if not download:
        raise DataError(missing)
    target = places[0] / f"{name}.npz"
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".partial", dir=target.parent) as partial:
            _download(info, Path(partial))
            os.replace(Path(partial) / target.name, target)
    except (OSError, RuntimeError):
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise DataError(f"{missing}, and it could not be downloaded from {info['url']}") from None
    return target


def _download(info: Mapping[str, Any], folder: Path) -> None:
    """Let the package fetch the archive; it checks the MD5 and raises RuntimeError when anything fails."""
    import medmnist

    with contextlib.redirect_stdout(io.StringIO()):
        getattr(medmnist, info["python_class"])(split="val", download=True, root=str(folder))


def md5_of(path: Path, name: str) -> str:
    """The MD5 of the archive, as 32 hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path}: the archive of {name} cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


def read_arrays(path: Path, info: Mapping[str, Any], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images ``N,H,W,C`` uint8 and labels ``N,L`` of one split, checked against the package's INFO.

    Raises:
        DataError: the archive is not a readable npz, misses an array, or an array is not what INFO says.
    """
    images = _array(path, f"{split}_images")
    labels = _array(path, f"{split}_labels")
    count, channels = info["n_samples"][split], info["n_channels"]
    multilabel = info["task"].startswith("multi-label")
    shape: tuple[int, ...] = (count, 28, 28) if channels == 1 else (count, 28, 28, channels)
    if images.shape != shape or images.dtype != np.uint8:
        raise DataError(_unlike(path, f"{split}_images", f"uint8 of shape {shape}", images))
    shape = (count, len(info["label"]) if multilabel else 1)
    if labels.shape != shape or labels.dtype.kind not in "ui":
        raise DataError(_unlike(path, f"{split}_labels", f"integers of shape {shape}", labels))
    largest = 1 if multilabel else len(info["label"]) - 1
    if labels.size and (labels.min() < 0 or labels.max() > largest):
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{path}: array '{split}_labels' has values {found}, expected 0 to {largest}")
    return images.reshape(count, 28, 28, channels), labels


def _array(path: Path, key: str) -> np.ndarray:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: a single array, expected an npz archive")
        with archive:
            if key not in archive.files:
                raise DataError(f"{path}: no array {key!r}; the archive holds {', '.join(archive.files) or 'nothing'}")
            return archive[key]
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable npz archive (array {key!r}): {error}") from None


def _unlike(path: Path, key: str, expected: str, found: np.ndarray) -> str:
    return f"{path}: array {key!r} is {found.dtype} of shape {found.shape}, expected {expected}"
