"""The document of a search: what is tried, how it is judged, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data_shards.support.documents import Document

Count = Annotated[int, Field(gt=0)]
_KINDS = ("grid", "choice", "uniform", "loguniform", "integers")


class Dimension(Document):
    """What one key may be; exactly one of these is given.

    Attributes:
        grid: every value is tried, with every value of every other grid.
        choice: one of these, drawn.
        uniform: a number between two.
        loguniform: a number between two above zero, whose logarithm is drawn evenly.
        integers: a whole number from one to another, both included.
    """

    grid: Annotated[list[Any], Field(min_length=1)] | None = None
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    integers: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Dimension:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(_KINDS)}; found {', '.join(given) or 'none'}")
        if given[0] in ("uniform", "loguniform", "integers"):
            low, high = getattr(self, given[0])
            if not low < high or (given[0] == "loguniform" and low <= 0):
                above = " above zero" if given[0] == "loguniform" else ""
                raise ValueError(f"{given[0]} [{low}, {high}]: two rising numbers{above} are expected")
        return self

    @property
    def examples(self) -> list[Any]:
        """All values of a list, and the ends of a range."""
        listed = self.grid or self.choice
        if listed is not None:
            return listed
        ends = self.uniform or self.loguniform or self.integers
        assert ends is not None
        return list(ends)


class EarlyConfig(Document):
    """When a trial that is worse than others at the same step is ended (ASHA, Li et al., MLSys 2020).

    Attributes:
        grace: steps that every trial is given.
        reduction: of those that reach a rung, one in so many goes on; the next rung is so many times as far.
    """

    grace: Count
    reduction: Annotated[float, Field(gt=1)] = 3.0


class SearchConfig(Document):
    """One search.

    Attributes:
        out: folder of the search: its trials, their table, and the document of the winner.
        pretrain: the pretraining document that is varied.
        finetune: the fine-tuning document that is varied; one of the two is given.
        space: what each key may be, by its place in that document, such as ``model.kwargs.depth``.
        metric: what trials are judged by: a name of ``metrics.jsonl``, such as ``loss`` or ``probe/NAME/knn_auc``; of a
            fine-tuning one of its scores, such as ``auc``, as estimated within the labels.
        mode: whether the smallest or the largest is the best.
        trials: how often the space is drawn; with grids, of each of their combinations.
        seed: of the draws.
        early: when bad trials are ended; None lets all come to their end.
        concurrent: trials side by side at most; None for as many as the machines hold.
        cpus_per_trial: CPU threads of each.
        gpus_per_trial: GPUs of each; a fraction lets trials share one.
        address: of a Ray cluster; None starts one on this machine.
        experiment: MLflow experiment, in which the search is a run and each trial a run within it.
        tracking_uri: MLflow server; None for the store on this machine.
    """

    out: Path
    pretrain: Path | None = None
    finetune: Path | None = None
    space: dict[str, Dimension]
    metric: str
    mode: Literal["min", "max"]
    trials: Count = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    early: EarlyConfig | None = None
    concurrent: Count | None = None
    cpus_per_trial: Count = 1
    gpus_per_trial: Annotated[float, Field(ge=0, le=1)] = 0.0
    address: str | None = None
    experiment: str = "search"
    tracking_uri: str | None = None

    @model_validator(mode="after")
    def _one_base(self) -> SearchConfig:
        if (self.pretrain is None) == (self.finetune is None):
            raise ValueError("give pretrain or finetune, the document that is varied")
        if self.finetune is not None and self.early is not None:
            raise ValueError("early: a fine-tuning is judged once, at its end; leave it out")
        return self

    @property
    def base(self) -> Path:
        """The document that is varied."""
        found = self.pretrain or self.finetune
        assert found is not None
        return found
