"""The document of a measurement of robustness: everything the result depends on."""

from __future__ import annotations

from pydantic import Field, field_validator

from finetune.config import NewImagesConfig
from finetune.shift.corruptions import CORRUPTIONS, SEVERITIES


class RobustnessConfig(NewImagesConfig):
    """One measurement; every case has a label.

    Attributes:
        corruptions: names of :data:`finetune.shift.corruptions.CORRUPTIONS`; empty for all.
        severities: of 1 to 5.
        replicates: of the bootstrap.
        seed: of what is drawn for images, and of the bootstrap.
    """

    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = Field(SEVERITIES, min_length=1)
    replicates: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)

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
                raise ValueError(f"a severity is one of {', '.join(map(str, SEVERITIES))}")
        return tuple(sorted(set(severities)))
