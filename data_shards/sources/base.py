"""What a source of samples is, and where sources are found by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

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


class Source(Protocol):
    """Yields the samples of one dataset, in the same order every time."""

    card: DatasetCard

    def __iter__(self) -> Iterator[Sample]:
        """The samples, each with its split."""
        ...


SourceFactory = TypeVar("SourceFactory", bound=Callable[..., Source])
_sources: dict[str, Callable[..., Source]] = {}


def register_source(name: str) -> Callable[[SourceFactory], SourceFactory]:
    """Class decorator: makes a source of this package known by ``name``."""

    def add(factory: SourceFactory) -> SourceFactory:
        _sources[name] = factory
        return factory

    return add


def source_named(name: str) -> Callable[..., Source]:
    """The source class registered by ``name``; every module of ``data_shards.sources`` is looked at.

    Raises:
        DataError: there is none; the nearest valid name is given.
    """
    package = importlib.import_module("data_shards.sources")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"data_shards.sources.{module.name}")
    if name not in _sources:
        raise DataError(f"unknown source {name!r}{nearest(name, _sources)}")
    return _sources[name]
