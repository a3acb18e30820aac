"""What a search has to know of the kind of run that it varies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

Report = Callable[[Mapping[str, float], int], None]
"""Takes the metrics of a trial after a step."""


class Kind(Protocol):
    """A kind of run. It goes to the trials by pickle, so its class is importable there."""

    def check(self, content: dict[str, Any], origin: str) -> None:
        """See that a document can be run, as far as that takes a second.

        Raises:
            ConfigError: an unknown key (with the nearest valid one), a value that cannot be, data that are not there.
        """

    def steps(self, content: dict[str, Any]) -> int:
        """The step at which a run of this document ends."""

    def run(self, content: dict[str, Any], out: Path, report: Report) -> None:
        """Run it, in ``out``, or go on with what lies there; metrics are reported as they come.

        Raises:
            MedformerError: the run cannot be done, or has gone wrong.
        """
