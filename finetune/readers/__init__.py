"""Reading labelled images: one file per kind of source, and the function that tells the kinds apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_shards.sources.images.channels import Channels
from data_shards.sources.tables.cells import MISSING
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ
from finetune.labelled import LabelledImages
from finetune.readers.archive import read_archive
from finetune.readers.shards import read_shards
from finetune.readers.table import read_table


def read_labelled(
    path: Path,
    *,
    csv: Path | None = None,
    size: int | None = None,
    organ: Organ = Organ.unknown,
    modality: Modality = Modality.unknown,
    channels: Channels = "auto",
    missing: Sequence[str] = MISSING,
    show_paths: bool = False,
) -> dict[str, LabelledImages]:
    """The splits of a labelled dataset.

    Args:
        path: a MedMNIST ``.npz``, a folder of shards, or a folder of images together with ``csv``.
        csv: the table that goes with a folder of images, see :func:`finetune.readers.table.read_table`.
        size: side in pixels that images of a folder are resized to; None requires that all have the same size.
        organ: body part that the images of a folder show; archives and shards say it themselves.
        modality: how the images of a folder were made; archives and shards say it themselves.
        channels: 1 or 3 to bring the images of a folder to; ``auto`` does so where grey and colour are mixed.
        missing: spellings of no label in the table, beside the empty cell.
        show_paths: keys and messages have names of files and keys of foreign tars; only where these identify nobody.

    Raises:
        DataError: nothing readable is there, what is there is damaged, or what only a folder of images can be told is
            told of something else.
    """
    if csv is not None:
        return read_table(
            path,
            csv,
            size=size,
            organ=organ,
            modality=modality,
            channels=channels,
            missing=missing,
            show_paths=show_paths,
        )
    told = {"a size": size is not None, "an organ": organ != Organ.unknown, "a modality": modality != Modality.unknown}
    for what, is_told in told.items():
        if is_told:
            raise DataError(f"{path}: {what} can be given for a folder of images with a CSV only")
    if path.is_file():
        return read_archive(path)
    if (path / "manifest.json").is_file():
        return read_shards(path, show_paths=show_paths)
    if path.is_dir():
        raise DataError(f"{path}: no manifest.json there; a folder of images needs a CSV with columns file, label")
    raise DataError(f"{path}: no such file or folder")


__all__ = ["read_archive", "read_labelled", "read_shards", "read_table"]
