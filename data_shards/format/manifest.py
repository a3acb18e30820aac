"""The manifest of a sharded dataset: one JSON document that says what the folder holds and how to check it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import field_validator

from data_shards.card import DatasetCard
from data_shards.intensity import IntensityRule
from data_shards.sample import SPLITS
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.documents import Document, parse, resolved
from data_shards.support.errors import ConfigError, DataError, nearest
from data_shards.support.files import write_json
from data_shards.vocabulary import Dimensionality, Modality, Organ, Task

SCHEMA_VERSION = 3
_READ = (2, 3)
"""Version 2 knew 8 bits alone: no rules of intensity, and no compressed members."""
FILE_NAME = "manifest.json"


class ShardEntry(Document):
    """One shard and its index; checksums are SHA-256.

    Attributes:
        file: name of the tar file.
        samples: how many studies it holds.
        bytes: its size.
        sha256: its checksum.
        index: name of the offset index.
        index_bytes: size of the index.
        index_sha256: checksum of the index.
    """

    file: str
    samples: int
    bytes: int
    sha256: str
    index: str
    index_bytes: int
    index_sha256: str

    @field_validator("file", "index")
    @classmethod
    def _in_the_folder(cls, name: str) -> str:
        if Path(name).name != name or not name:
            raise ValueError("a file beside the manifest is expected")
        return name


class ImageLayout(Document):
    """The images of one name in one split.

    Attributes:
        images: how many studies have it.
        shape: its shape when all agree, else None.
        dtype: its dtype when all agree, else None.
        mean: mean intensity of all pixels of all channels.
        std: standard deviation of the same.
        min: smallest value.
        max: largest value.
    """

    images: int
    shape: tuple[int, ...] | None
    dtype: str | None
    mean: float
    std: float
    min: float
    max: float


class SplitEntry(Document):
    """One split.

    Attributes:
        samples: how many studies.
        subjects: how many different subjects.
        classes: samples per label value; per positive column when the task is ``multilabel``.
        images: layout and intensity statistics by image name.
        shards: its shards, in sample order.
    """

    samples: int
    subjects: int
    classes: dict[int, int]
    images: dict[str, ImageLayout]
    shards: tuple[ShardEntry, ...]


class LabelLayout(Document):
    """Labels are vectors of ``width`` numbers of ``dtype``; width 0 means that nothing is labelled."""

    width: int
    dtype: str


class Manifest(Document):
    """What a folder of shards holds.

    Attributes:
        schema_version: version of this document and of the index.
        card: the dataset in words, with licence, source version, checksums, classes and split rule.
        vocabulary: ids of the vocabulary entries that occur, by enumeration and name.
        label: layout of the labels.
        attributes: names of the attributes, in the order of the columns of the index.
        intensity: how values become the range of the network, by image name; one that is not named has 8 bits, or
            whoever reads it has to say the rule.
        adopted: whether the shards were written by other software and only indexed by ours.
        splits: the splits by name.
        shared_images: for each pair of splits, how many different images occur in both.
        repeated_images: how many images are the same as an earlier one, in whatever split.
        skipped: how many items of the archive are not in the dataset; ``skipped.csv`` says which and why.
        digest: SHA-256 of all the rest.
    """

    schema_version: int
    card: DatasetCard
    vocabulary: dict[str, dict[str, int]]
    label: LabelLayout
    attributes: tuple[str, ...] = ()
    intensity: dict[str, IntensityRule] = {}
    adopted: bool = False
    splits: dict[str, SplitEntry]
    shared_images: dict[str, int]
    repeated_images: int = 0
    skipped: int = 0
    digest: str = ""


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest.json`` with its digest into ``folder``; returns what was written."""
    content = resolved(manifest)
    content["digest"] = digest_of(content)
    write_json(folder / FILE_NAME, content)
    return read_manifest(folder)


def digest_of(content: dict[str, Any]) -> str:
    """SHA-256 of a manifest as plain JSON types, its own ``digest`` left out."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of shards.

    Raises:
        DataError: there is none, it is damaged (its digest does not fit), its schema version is another one, or its
            vocabulary ids are not ours.
    """
    path = folder / FILE_NAME
    try:
        document = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: not a folder of shards: no {FILE_NAME}") from None
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{path}: not a readable manifest: {error.strerror or error}") from None
    return parse_manifest(document, str(path))


def parse_manifest(document: bytes, path: str) -> Manifest:
    """The manifest in a JSON document.

    Args:
        document: content of the file.
        path: its address, for messages.

    Raises:
        DataError: as for :func:`read_manifest`.
    """
    try:
        content = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable manifest: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
        raise DataError(f"{path}: not a manifest of shards: no schema_version")
    if content["schema_version"] not in _READ:
        raise DataError(
            f"{path}: schema version {content['schema_version']}, this Medformer reads {_READ[0]} to {_READ[-1]}; "
            "build the shards again"
        )
    if content.get("digest") != digest_of(content):
        raise DataError(f"{path}: the manifest was altered or damaged: its digest does not fit its content")
    try:
        manifest = parse(Manifest, content, path)
    except ConfigError as error:
        raise DataError(str(error)) from None
    _check_vocabulary(manifest, path)
    return manifest.model_copy(update={"splits": {name: manifest.splits[name] for name in _in_order(manifest)}})


def split_entry(manifest: Manifest, split: str, folder: Path | str) -> SplitEntry:
    """The entry of ``split``.

    Raises:
        DataError: the dataset has no such split.
    """
    if split not in manifest.splits:
        raise DataError(f"{folder}: no split {split!r}{nearest(split, manifest.splits)}")
    return manifest.splits[split]


def _in_order(manifest: Manifest) -> list[str]:
    """The names of the splits, train first; the JSON document has them by alphabet."""
    return [name for name in SPLITS if name in manifest.splits]


def _check_vocabulary(manifest: Manifest, path: str) -> None:
    enumerations = {"organ": Organ, "modality": Modality, "dimensionality": Dimensionality, "task": Task}
    for kind, entries in manifest.vocabulary.items():
        for name, number in entries.items():
            members = enumerations[kind].__members__ if kind in enumerations else {}
            if name not in members or int(members[name]) != number:
                raise DataError(f"{path}: {kind} {name!r} with id {number} is not in the vocabulary of this Medformer")
