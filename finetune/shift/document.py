"""The document of a measurement of robustness: everything the result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from data_shards.sources.tables.cells import Spellings
from data_shards.support.documents import Document
from finetune.shift.corruptions import CORRUPTIONS, SEVERITIES


class RobustnessConfig(Document):
    """One measurement.

    Attributes:
        classifier: folder of a classifier, or of what ``finetune`` wrote, or ``name@alias`` of the registry.
        data: labelled images, as for :class:`~finetune.config.PredictConfig`.
        corruptions: names of :data:`finetune.shift.corruptions.CORRUPTIONS`; empty for all.
        severities: of 1 to 5.
        replicates: of the bootstrap.
        seed: of what is drawn for images, and of the bootstrap.
        csv: table of a folder of images.
        split: of an archive or of shards; None for all.
        missing: spellings of no label in the table, beside the empty cell.
        on_error: ``skip`` leaves out images that cannot be read.
        show_paths: messages have names of files; only where these identify nobody.
        device: where the network runs.
    """

    classifier: str
    data: Path
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1)
    replicates: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)
    csv: Path | None = None
    split: str | None = None
    missing: Spellings | None = None
    on_error: Literal["stop", "skip"] = "stop"
    show_paths: bool = False
    device: str = "cpu"

    @field_validator("corruptions")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            CORRUPTIONS.named(name)
        return tuple(dict.fromkeys(names)) or tuple(CORRUPTIONS.names())

    @field_validator("severities")
    @classmethod
    def _rising(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        for severity in severities:
            if severity not in SEVERITIES:
                raise ValueError(f"a severity is one of {', '.join(map(str, SEVERITIES))}, found {severity}")
        return tuple(sorted(set(severities)))
