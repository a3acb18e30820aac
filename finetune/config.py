"""The documents of a fine-tuning and of an evaluation: everything the result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from data_shards.sources.images.channels import Channels
from data_shards.sources.tables.cells import MISSING, Spellings
from data_shards.support.documents import Document
from data_shards.vocabulary import Modality, Organ, word


class ImagesConfig(Document):
    """What a folder of images needs beside its path; archives and shards know it themselves.

    Attributes:
        csv: table of a folder of images.
        size: side in pixels to resize the images of a folder to.
        organ: entry of :class:`~data_shards.vocabulary.Organ`, by name: what the images of a folder show.
        modality: entry of :class:`~data_shards.vocabulary.Modality`, by name: how they were made.
        channels: what the images of a folder are brought to: 1, 3, keep or, where grey and colour are mixed, auto.
        missing: spellings of no label in the table, beside the empty cell.
        show_paths: results and messages have names of files; only where these identify nobody.
    """

    csv: Path | None = None
    size: int | None = Field(default=None, ge=4, le=1024)
    organ: str = Organ.unknown.name
    modality: str = Modality.unknown.name
    channels: Channels = "auto"
    missing: Spellings = MISSING
    show_paths: bool = False

    @field_validator("organ")
    @classmethod
    def _organ_is_known(cls, name: str) -> str:
        return word(Organ, name).name

    @field_validator("modality")
    @classmethod
    def _modality_is_known(cls, name: str) -> str:
        return word(Modality, name).name


class FinetuneConfig(ImagesConfig):
    """One fine-tuning.

    Attributes:
        model: folder of a bundle, ``name@alias`` of the registry, or the name of a fresh network.
        data: MedMNIST npz, folder of shards, or folder of images that goes with ``csv``.
        head: ``linear``, ``attention`` or another name of :func:`finetune.heads.head_names`.
        strategy: ``frozen`` or ``full``.
        per_class: labels per class to use; None for all of the train split, unless ``fraction`` is given.
        fraction: share of each class to use.
        seed: of the draw, of weights, splits, batches and augmentation.
        device: where the network runs.
    """

    model: str
    data: Path
    head: str = "linear"
    strategy: Literal["frozen", "full"] = "frozen"
    per_class: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"

    @field_validator("head")
    @classmethod
    def _head_is_known(cls, name: str) -> str:
        from finetune.heads import known_head  # brings torch, which a document needs for nothing else

        return known_head(name)

    @model_validator(mode="after")
    def _one_budget(self) -> FinetuneConfig:
        if self.per_class is not None and self.fraction is not None:
            raise ValueError("give per_class or fraction, not both")
        return self


class EvaluateConfig(ImagesConfig):
    """One evaluation.

    Attributes:
        model: folder of a bundle or ``name@alias`` of the registry.
        data: one or more of what :class:`FinetuneConfig` takes.
        k: neighbours of the kNN probe.
        per_class: budgets of a few-label comparison; none leaves it out.
        seeds: of the comparison; the first is that of the probes.
        max_steps: length of the schedules that whole networks are trained by; None lets every fit choose among those
            of :mod:`finetune.schedules`, which takes twice as long.
        device: where the network runs.
    """

    model: str
    data: tuple[Path, ...] = Field(min_length=1)
    k: int = Field(default=20, ge=1)
    per_class: tuple[int, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    max_steps: int | None = Field(default=None, ge=1)
    device: str = "cpu"
