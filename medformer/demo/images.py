"""Which images the demonstration works on: real ones where they can be had, phantoms otherwise."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_shards.sources.base import Source
from data_shards.sources.medmnist.source import MedMNIST
from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import DataError

SETS = ("breastmnist", "retinamnist", "pneumoniamnist")
"""Small enough for a demonstration: 6,334 training images, 4 MB."""
PHANTOMS = ("phantom-brain-mri-2d", "phantom-knee-mri-2d", "phantom-abdomen-ct-2d")
"""Slices of three organs; 8 of each of 250 subjects are drawn in a minute, and 4,200 are there to train on."""


@dataclass(frozen=True)
class Chosen:
    """The sources of a demonstration.

    Attributes:
        sources: in the order of the report.
        notes: plain sentences on what was chosen and why, for terminal and page.
    """

    sources: tuple[Source, ...]
    notes: tuple[str, ...]


def choose(folder: Path | None, seed: int) -> Chosen:
    """The sources for a demonstration.

    Args:
        folder: searched for MedMNIST files, also below; None looks where MedMNIST keeps them, then downloads.
        seed: of the phantoms.

    Raises:
        DataError: ``folder`` holds none of the files, or one that is damaged.
    """
    if folder is not None:
        return _from_folder(folder)
    try:
        return Chosen(tuple(MedMNIST(name) for name in SETS), ())
    except DataError:
        note = "No MedMNIST files on this machine and none could be downloaded: synthetic phantoms stand in for images."
        phantoms = (Phantoms(name, seed=seed, subjects=250, images_per_subject=8, difficulty=0.25) for name in PHANTOMS)
        return Chosen(tuple(phantoms), (note,))


def keep_archives(chosen: Chosen, folder: Path) -> Path | None:
    """Put the archives that a demonstration reads into one folder, where later commands find them, also offline.

    Args:
        chosen: the sources.
        folder: where to; made when there are archives.

    Returns:
        The folder, or None when no source reads an archive.

    Raises:
        DataError: an archive cannot be copied.
    """
    archives = [source.archive for source in chosen.sources if isinstance(source, MedMNIST)]
    try:
        for archive in archives:
            folder.mkdir(exist_ok=True)
            try:
                os.link(archive, folder / archive.name)
            except OSError:  # on another disk, or not ours to link
                shutil.copyfile(archive, folder / archive.name)
    except OSError as error:
        raise DataError(f"cannot copy {archive} into {folder}: {error.strerror or error}") from error
    return folder if archives else None


def _from_folder(folder: Path) -> Chosen:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    sources: list[Source] = []
    for name in SETS:
        official = sorted(folder.rglob(f"{name}.npz"))
        others = [
            path for path in sorted(folder.rglob(f"{name}_*.npz")) if not path.stem.rpartition("_")[2].isdecimal()
        ]
        if official:
            sources.append(MedMNIST(name, file=official[0]))
        elif others:
            reason = f"read from {others[0].name}, which is not the published file"
            sources.append(MedMNIST(name, file=others[0], unofficial=reason))
    if not sources:
        raise DataError(f"{folder}: none of {', '.join(f'{name}.npz' for name in SETS)} is there")
    return Chosen(tuple(sources), ())
