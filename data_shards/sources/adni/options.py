"""The options of the source ``adni``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from data_shards.sources.adni.facts import Filling
from data_shards.sources.adni.table import MEASURES
from data_shards.sources.adni.visits import Preference
from data_shards.sources.splits import Shares
from data_shards.support.documents import Document
from data_shards.support.errors import nearest

Label = Literal["diagnosis", "age", "sex", "none"]
Kind = Literal["mri", "pet", "pet_fdg", "pet_av45", "pet_pib", "pet_fbb", "pet_tau"]


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


class Options(Document):
    """An export of ADNI from LONI IDA: unzipped image collections and tables."""

    root: Path = Field(description="folder of the unzipped image collections")
    tables: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = Field(
        (), description="collection and study tables, or folders of them; default: every CSV and TSV below the root"
    )
    study_table: Path | None = Field(
        None, description="ADNIMERGE, where it is not among the tables or not the only one"
    )
    name: str = Field(
        "adni", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="short name of the dataset; part of every key"
    )
    label: Label = Field(
        "diagnosis", description="what is to be predicted; diagnosis: CN, MCI or Dementia at the visit"
    )
    images: Annotated[tuple[Kind, ...], BeforeValidator(_listed)] = Field(
        ("mri", "pet"), description="kinds that are read; pet: with any tracer"
    )
    require: Annotated[tuple[Kind, ...], BeforeValidator(_listed)] = Field(
        (), description="kinds that a visit must have; pet: with any tracer"
    )
    prefer: Preference = Field("processed", description="which images of a visit are preferred: processed or original")
    words: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="parts of descriptions to prefer before all else, the best first"
    )
    exam_days: int = Field(90, ge=0, description="an image without code belongs to the examination within so many days")
    join_days: int = Field(45, ge=0, description="images without code are of one visit within so many days")
    fill: Filling = Field(
        "drop", description="what is done with visits without diagnosis, by the subject's other visits"
    )
    attributes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="further numbers of ADNIMERGE to keep, such as ABETA or Hippocampus"
    )
    shares: Shares = Field(Shares(), description="share of the subjects in each split")
    salt_file: Path | None = Field(None, description="secret for the hashes of subjects; default: the user's own")
    show_paths: bool = Field(False, description="messages give relative paths, in which ADNI's identifiers stand")

    @field_validator("attributes")
    @classmethod
    def _are_measures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in MEASURES:
                raise ValueError(f"{name!r} is not a measurement of ADNIMERGE{nearest(name, MEASURES)}")
        return names
