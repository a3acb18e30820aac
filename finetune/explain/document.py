"""The document of an explanation: everything the result depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_shards.sources.tables.cells import Spellings
from data_shards.support.documents import Document
from finetune.explain.asking import PREDICTED
from finetune.explain.methods import METHODS
from finetune.explain.sanity import CASES


class ExplainConfig(Document):
    """One explanation.

    Attributes:
        classifier: folder of a classifier, or of what ``finetune`` wrote, or ``name@alias`` of the registry.
        data: new images, as for :class:`~finetune.config.PredictConfig`; labels are not needed.
        method: one of :data:`finetune.explain.methods.METHODS`.
        options: of its ``Config``.
        classes: names of the classes that are explained; or ``predicted``, or ``all``.
        cases: keys of the cases that are explained, as in the table of predictions; empty for all.
        sanity: whether the randomisation check is made.
        sanity_cases: on how many of the cases.
        seed: of what is drawn.
        csv: table of a folder of images.
        split: of an archive or of shards; None for all.
        missing: spellings of no label in the table, beside the empty cell.
        on_error: ``skip`` leaves out images that cannot be read.
        show_paths: results have names of files; only where these identify nobody.
        device: where the network runs.
    """

    classifier: str
    data: Path
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = Field((PREDICTED,), min_length=1)
    cases: tuple[str, ...] = ()
    sanity: bool = False
    sanity_cases: int = Field(CASES, ge=2)
    seed: int = Field(0, ge=0)
    csv: Path | None = None
    split: str | None = None
    missing: Spellings | None = None
    on_error: Literal["stop", "skip"] = "stop"
    show_paths: bool = False
    device: str = "cpu"

    @model_validator(mode="after")
    def _method_is_known(self) -> ExplainConfig:
        METHODS.config(self.method, self.options)
        return self
