"""What the registry says about models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.digests import FileDigest, encode
from cluster.history import AliasMove, Deletion
from data_shards.support.secrets import shown


@dataclass(frozen=True)
class PublishedModel:
    """One version of a model.

    Attributes:
        name: the registered model.
        version: a whole number from 1, as text.
        aliases: what the version is called now.
        created: when it was published, ISO 8601 in UTC.
        architecture: the timm name of the backbone, or what it is otherwise, in words.
        run_id: the MLflow run that made it, or None.
        files: SHA-256 and size of every file.
        location: where MLflow keeps the files.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    created: str
    architecture: str
    run_id: str | None
    files: Mapping[str, FileDigest]
    location: str

    @property
    def digest(self) -> str:
        """One SHA-256 for the whole bundle."""
        return hashlib.sha256(encode(self.files).encode()).hexdigest()

    @property
    def place(self) -> str:
        """``location`` for messages: without user, password and query string."""
        return shown(self.location)

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size_bytes for entry in self.files.values())


@dataclass(frozen=True)
class ModelSummary:
    """One line of the list: the newest version of a model and the aliases of all its versions."""

    name: str
    latest_version: str | None
    aliases: Mapping[str, str]
    updated: str


@dataclass(frozen=True)
class Promotion:
    """What came of giving an alias to a version, or of taking it away.

    Attributes:
        move: as it was recorded.
        holds: the newest move of the alias: another one, if somebody else moved it at the same time.
    """

    move: AliasMove
    holds: AliasMove


@dataclass(frozen=True)
class ModelDetails:
    """Everything about one name: versions newest first, moves of aliases oldest first.

    Attributes:
        newer: numbers of versions that a later Medformer published, which this one cannot read.
        deletions: versions that are gone, oldest first.
        unrecorded: aliases whose present version is not the last one recorded: they were moved by other means, or a
            promotion was cut off between the record and the alias.
    """

    name: str
    versions: tuple[PublishedModel, ...]
    newer: tuple[str, ...]
    aliases: Mapping[str, str]
    history: tuple[AliasMove, ...]
    deletions: tuple[Deletion, ...]
    unrecorded: tuple[str, ...]
