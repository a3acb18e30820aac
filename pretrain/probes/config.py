"""Which labelled images a run is probed on, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from data_shards.intensity import IntensityRule
from data_shards.support.documents import Document


def _not_the_test_split(split: Any) -> Any:
    if split == "test":
        raise ValueError("the test split is not looked at while a network is trained; expected train or val")
    if split not in ("train", "val"):
        raise ValueError("expected train or val")
    return split


Split = Annotated[str, BeforeValidator(_not_the_test_split)]


class ProbedConfig(Document):
    """One labelled shard folder.

    Attributes:
        path: folder that holds ``manifest.json``, or its URL.
        image: which image of the studies is read; may be left out when they have only one.
        fit: the split that the probes are fitted on, ``train`` or ``val``.
        score: the split that they are scored on; the same one is cut in two by subject.
        intensity: as for the datasets of the run.
    """

    path: Annotated[str, BeforeValidator(lambda path: str(path) if isinstance(path, Path) else path)]
    image: str | None = None
    fit: Split = "train"
    score: Split = "val"
    intensity: IntensityRule | None = None


class ProbesConfig(Document):
    """Probes of the embeddings during the run; the run learns the same with and without them.

    Attributes:
        datasets: labelled images; none for no probes.
        every_steps: optimizer steps between two probes; one is also made at the end.
        most_images: of each dataset, to fit on and to score on; more are drawn from, the same ones every time.
        neighbours: of the nearest-neighbour probe.
    """

    datasets: list[ProbedConfig] = []
    every_steps: Annotated[int, Field(gt=0)] = 500
    most_images: Annotated[int, Field(gt=1)] = 2000
    neighbours: Annotated[int, Field(gt=0)] = 20

    @model_validator(mode="after")
    def _once_each(self) -> ProbesConfig:
        keys = [(each.path, each.image) for each in self.datasets]
        if len(set(keys)) < len(keys):
            raise ValueError("a dataset is given twice")
        return self
