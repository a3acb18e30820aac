"""The document of an explanation: everything the result depends on."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from finetune.config import NewImagesConfig
from finetune.explain.asking import PREDICTED
from finetune.explain.methods import METHODS
from finetune.explain.sanity import CASES


class ExplainConfig(NewImagesConfig):
    """One explanation.

    Attributes:
        method: one of :data:`finetune.explain.methods.METHODS`.
        options: of its ``Config``.
        classes: names of the classes that are explained; or ``predicted``, or ``all``.
        cases: keys of the cases that are explained, as in the table of predictions; empty for all.
        sanity: whether the randomisation check is made.
        sanity_cases: on how many of the cases.
        seed: of what is drawn.
    """

    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = Field((PREDICTED,), min_length=1)
    cases: tuple[str, ...] = ()
    sanity: bool = False
    sanity_cases: int = Field(CASES, ge=2)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _method_is_known(self) -> ExplainConfig:
        METHODS.config(self.method, self.options)
        return self
