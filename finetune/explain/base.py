"""What a method of explanation is, and where methods are found by name."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_shards.support.documents import Document
from data_shards.support.registry import Registry
from finetune.cases import Cases
from finetune.classifier.member import Member
from finetune.classifier.predictor import Predictor
from finetune.explain.question import Question
from finetune.explain.space import CellMap


class Method(abc.ABC):
    """A way to explain.

    Args:
        config: its options.

    Attributes:
        Config: the options.
        name: as registered.
        unit: what the numbers are, in words.
    """

    name: ClassVar[str]
    unit: ClassVar[str]

    class Config(Document):
        """No options."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, member: Member) -> None:
        """Refuse a fitted model that this cannot explain.

        Raises:
            ConfigError: says what it is for.
        """
        del member


class CaseMethod(Method):
    """One that explains what is said of a case, by numbers for the places of its images."""

    @abc.abstractmethod
    def maps(self, question: Question) -> list[CellMap]:
        """A map of each image of each study of the case, studies in their order, in each the images by name."""

    def amount(self, values: np.ndarray) -> float | None:
        """Of how much evidence a map tells, in its unit; None where its numbers are of something else.

        Args:
            values: of its cells.
        """
        del values
        return None


@dataclass(frozen=True)
class Drawn:
    """What a method says of a classifier as a whole.

    Attributes:
        text: of it, for a terminal.
        figures: that say how far it can be trusted, by name.
        svg: a drawing.
    """

    text: str
    figures: dict[str, Any]
    svg: str


class CasesMethod(Method):
    """One that explains a classifier by what it says of many cases."""

    @abc.abstractmethod
    def drawn(self, predictor: Predictor, cases: Cases, probabilities: np.ndarray, seed: int) -> Drawn:
        """Explain.

        Args:
            predictor: what is explained.
            cases: as they are shown to its networks.
            probabilities: what it says of them, ``(N, C)``.
            seed: of all that is drawn.

        Raises:
            DataError: the cases are too few.
        """

    def write(self, drawn: Drawn, folder: Path) -> None:
        """Write the text and the drawing into a folder that exists."""
        (folder / f"{self.name}.txt").write_text(drawn.text)
        (folder / f"{self.name}.svg").write_text(drawn.svg)


METHODS: Registry[Method] = Registry("method")
register_method = METHODS.register


def create_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method.

    Raises:
        ConfigError: there is no such method or option; the nearest name is given.
    """
    return METHODS.named(name)(METHODS.config(name, options))
