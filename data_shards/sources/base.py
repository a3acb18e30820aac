"""What a source of samples is, and where sources are found by name."""

from __future__ import annotations

import abc
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import field_validator, model_validator

from data_shards.sample import Sample
from data_shards.support.documents import Document
from data_shards.support.errors import DataError, nearest
from data_shards.vocabulary import Dimensionality, Modality, Organ, Task, word


class DatasetCard(Document):
    """What a dataset is, in words; the manifest carries it to every user of the shards.

    Attributes:
        name: short name, used in file names.
        title: one line for people.
        organ: main entry of :class:`~data_shards.vocabulary.Organ`, by name.
        modality: main entry of :class:`~data_shards.vocabulary.Modality`, by name.
        dimensionality: entry of :class:`~data_shards.vocabulary.Dimensionality`, by name.
        task: entry of :class:`~data_shards.vocabulary.Task`, by name.
        classes: name of each label value; of each label column when the task is ``multilabel``.
        licence: the licence of the images, as its owner writes it.
        homepage: where the dataset comes from.
        source_version: version of the archive that was read.
        source_checksum: checksums of the archive, by algorithm.
        official: whether the archive is the published one, unaltered.
        note: why it is not official, or that it is synthetic; never empty for what is not official.
        split_rule: how samples are divided into train, val and test, and what is known of subjects.
    """

    name: str
    title: str
    organ: str
    modality: str
    dimensionality: str
    task: str
    classes: dict[int, str]
    licence: str
    homepage: str
    source_version: str
    source_checksum: dict[str, str]
    official: bool = True
    note: str = ""
    split_rule: str

    @field_validator("organ", "modality", "dimensionality", "task")
    @classmethod
    def _in_vocabulary(cls, name: str, info: Any) -> str:
        enumerations = {"organ": Organ, "modality": Modality, "dimensionality": Dimensionality, "task": Task}
        try:
            word(enumerations[info.field_name], name)
        except DataError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _says_why(self) -> DatasetCard:
        if not self.official and not self.note:
            raise ValueError("a dataset that is not official has a note that says why")
        return self


@dataclass(frozen=True)
class Skipped:
    """Something of an archive that is not in the dataset.

    Attributes:
        item: what, in words that identify nobody: ``file 17``, ``row 3 of the table``.
        reason: why not.
        subject: salted hash of the subject it belongs to, where that is known.
    """

    item: str
    reason: str
    subject: str = ""


class Source(abc.ABC):
    """The samples of one dataset by position.

    Making a source lists the archive; :meth:`sample` reads one item. A source is pickled into the processes that write
    shards, and equal positions give equal samples in all of them.

    Attributes:
        card: the dataset in words.
        skipped: what the listing left out, and why.
        warnings: what the owner of the archive has to know, such as images with text burned into the pixels.
        duplicates: what is done with an image that occurs twice, unless the user says: ``refuse``, ``drop`` all but the
            first, or ``allow``, which is for sets that are published as they are.
        Config: the options, for sources that are built from a document or from the command line.
    """

    card: DatasetCard
    skipped: Sequence[Skipped] = ()
    warnings: Sequence[str] = ()
    duplicates: Literal["refuse", "drop", "allow"] = "refuse"
    Config: ClassVar[type[Document]]

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many samples, all splits together."""

    @abc.abstractmethod
    def sample(self, position: int) -> Sample:
        """The sample at ``position``.

        Raises:
            DataError: it cannot be read; the message has no identifier of a person in it.
        """

    def name_of(self, position: int) -> str:
        """How messages call the item at ``position`` without naming a person."""
        return f"item {position}"

    def origin(self, position: int) -> dict[str, str]:
        """Where the item comes from in the archive, for a private table of its owner; may name a person."""
        return {}

    def __iter__(self) -> Iterator[Sample]:
        """All samples in order."""
        return map(self.sample, range(len(self)))

    @classmethod
    def from_config(cls, config: Any) -> list[Source]:
        """The sources that a ``Config`` describes; one, unless the source has several named sets."""
        raise DataError(f"{cls.__name__} is not built from a document")


SourceFactory = TypeVar("SourceFactory", bound=type[Source])
_sources: dict[str, type[Source]] = {}


def register_source(name: str) -> Callable[[SourceFactory], SourceFactory]:
    """Class decorator: makes a source of this package known by ``name``."""

    def add(factory: SourceFactory) -> SourceFactory:
        _sources[name] = factory
        return factory

    return add


def registered_sources() -> dict[str, type[Source]]:
    """Every source class by name; every module of ``data_shards.sources`` is looked at."""
    package = importlib.import_module("data_shards.sources")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"data_shards.sources.{module.name}")
    return dict(sorted(_sources.items()))


def source_named(name: str) -> type[Source]:
    """The source class registered by ``name``.

    Raises:
        DataError: there is none; the nearest valid name is given.
    """
    sources = registered_sources()
    if name not in sources:
        raise DataError(f"unknown source {name!r}{nearest(name, sources)}")
    return sources[name]
