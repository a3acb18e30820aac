"""What a source of samples is, and where sources are found by name."""

from __future__ import annotations

import abc
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from data_shards.card import DatasetCard
from data_shards.intensity import Rule
from data_shards.sample import Sample
from data_shards.support.documents import Document
from data_shards.support.errors import DataError
from data_shards.support.registry import Registry

__all__ = ["SOURCES", "DatasetCard", "Skipped", "Source", "register_source", "registered_sources", "source_named"]


@dataclass(frozen=True)
class Skipped:
    """Something of an archive that is not in the dataset.

    Attributes:
        item: what, in words that identify nobody: ``file 17``, ``row 3 of the table``.
        reason: why not.
        subject: salted hash of the subject it belongs to, where that is known.
        lost: whether an image that should be there is lost by it, as by a damaged file: it stops a build, unless the
            user says that it shall go on. False for what is no image, for copies, and for what options leave out.
    """

    item: str
    reason: str
    subject: str = ""
    lost: bool = False


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
        intensity: how values become the range of the network, by image name; the manifest takes it over.
        name: as registered.
        Config: the options, for sources that are built from a document or from the command line.
    """

    card: DatasetCard
    skipped: Sequence[Skipped] = ()
    warnings: Sequence[str] = ()
    duplicates: Literal["refuse", "drop", "allow"] = "refuse"
    intensity: Mapping[str, Rule] = {}
    Config: ClassVar[type[Document]]
    name: ClassVar[str]

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


SOURCES: Registry[Source] = Registry("source", plugins="medformer.sources", error=DataError)
register_source = SOURCES.register


def registered_sources() -> dict[str, type[Source]]:
    """Every source class by name: of ``data_shards.sources``, and of packages with an entry point.

    A source of this package is a module of ``data_shards.sources``, or the module ``source`` of a folder there.

    Raises:
        DataError: a package that offers a source cannot be imported, or its name is taken; the package is named.
    """
    package = importlib.import_module("data_shards.sources")
    for module in pkgutil.iter_modules(package.__path__):
        name = f"data_shards.sources.{module.name}" + (".source" if module.ispkg else "")
        if not module.ispkg or importlib.util.find_spec(name) is not None:  # folders without it help the others
            importlib.import_module(name)
    SOURCES.load()
    return dict(sorted(SOURCES.items()))


def source_named(name: str) -> type[Source]:
    """The source class registered by ``name``.

    Raises:
        DataError: there is none; the nearest valid name is given.
    """
    registered_sources()
    return SOURCES.named(name)
