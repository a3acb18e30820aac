"""Finding, downloading and checking the npz archive of a MedMNIST set."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import io
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data_shards.sources.medmnist.sets import Published
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError


def fetch(archive: Published, places: Sequence[Path], *, download: bool) -> Path:
    """The archive in the first of ``places`` that has it, else downloaded into the first place.

    The download goes to a hidden folder beside its place and is moved there when complete and verified.

    Raises:
        DataError: the archive is nowhere and cannot be downloaded; the message names the places, and a file in them
            that seems to be of the set but has another name.
    """
    file_name = f"{archive.stem}.npz"
    for place in places:
        if (place / file_name).is_file():
            return place / file_name
    looked_in = ", ".join(str(place) for place in places)
    missing = f"{archive.stem}: no {file_name} in {looked_in}; root=FOLDER names another folder"
    renamed = _under_another_name(archive, places)
    if not download:
        raise DataError(missing + renamed)
    target = places[0] / file_name
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{archive.stem}.", suffix=".partial", dir=target.parent) as partial:
            _download(archive, Path(partial))
            os.replace(Path(partial) / target.name, target)
    except (OSError, RuntimeError, ValueError, RecursionError, http.client.HTTPException):
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise DataError(f"{missing}; and it could not be downloaded from {archive.url}{renamed}") from None
    return target


def _under_another_name(archive: Published, places: Sequence[Path]) -> str:
    """How the first file is taken whose name begins with that of the set and is of no published size; or nothing."""
    published = re.compile(rf"{re.escape(archive.name)}(_\d+)?\.npz")
    for place in places:
        for path in sorted(place.glob(f"{archive.name}*.npz")):
            if path.is_file() and not published.fullmatch(path.name):
                return f"; {path} is taken by file={path} unofficial=REASON, for this set alone"
    return ""


def _download(archive: Published, folder: Path) -> None:
    """Fetch the archive with the function that the package uses; it checks the MD5.

    The package's own classes also load a split into memory after the download, which takes gigabytes at large sizes.
    """
    from torchvision.datasets.utils import download_url

    with contextlib.redirect_stdout(io.StringIO()):
        download_url(archive.url, root=str(folder), filename=f"{archive.stem}.npz", md5=archive.md5)


def md5_of(path: Path, name: str) -> str:
    """The MD5 of the archive, as 32 hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{path}: the archive of {name} cannot be read: {error.strerror or error}") from None
