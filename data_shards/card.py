"""The card of a data set: what it is, in words that every later document repeats."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from data_shards.support.documents import Document
from data_shards.support.errors import DataError
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
