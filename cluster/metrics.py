"""What was measured of a model, as flat names with numbers, and with intervals where there are any."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import RegistryError
from data_shards.support.errors import nearest

# The last word of the names of metrics of which less is better; of all others more is.
_LESS_IS_BETTER = frozenset(
    ("loss", "error", "mae", "mse", "rmse", "nll", "log_loss", "brier", "ece", "grad_norm", "data_wait")
)
_MOST_NAMED = 12


@dataclass(frozen=True)
class Measured:
    """One number.

    Attributes:
        value: the estimate.
        low: lower end of its interval; the value where there is none.
        high: upper end.
        level: coverage of the interval; None where there is none.
    """

    value: float
    low: float
    high: float
    level: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.6g}" + (f" ({self.low:.6g} to {self.high:.6g})" if self.level is not None else "")

    @property
    def negative(self) -> Measured:
        """The number with the other sign."""
        return Measured(-self.value, -self.high, -self.low, self.level)


def metrics_in(document: Mapping[str, Any]) -> dict[str, Measured]:
    """The finite numbers of ``metrics.json``, or of the estimate of a classifier.

    A mapping with ``estimate``, ``low`` and ``high`` is one number with its interval. Names are the keys on the way,
    joined by ``/``. Lists and words are passed over.
    """
    return dict(_leaves(document, ""))


def less_is_better(name: str) -> bool:
    """Whether a metric is one of errors."""
    return name.rpartition("/")[2] in _LESS_IS_BETTER


def found_as(asked: str, metrics: Mapping[str, Measured], owner: str) -> str:
    """The full name of a metric that is asked for by it, or by its last words.

    Raises:
        RegistryError: there is none, or there are several; the names are told.
    """
    if asked in metrics:
        return asked
    matching = sorted(name for name in metrics if name.endswith(f"/{asked}"))
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise RegistryError(f"{owner}: which {asked!r}? {', '.join(matching[:_MOST_NAMED])}")
    if not metrics:
        raise RegistryError(f"{owner}: no metric {asked!r}; it has none")
    names = sorted(metrics)
    rest = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    known = nearest(asked, names) if rest else ""
    raise RegistryError(f"{owner}: no metric {asked!r}; it has {', '.join(names[:_MOST_NAMED])}{rest}{known}")


def _leaves(document: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Measured]]:
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if all(_is_number(value.get(end)) for end in ("estimate", "low", "high")):
                estimate, low, high = (float(value[end]) for end in ("estimate", "low", "high"))
                yield name, Measured(estimate, low, high, float(value.get("level", math.nan)))
            elif _is_number(value.get("estimate")):
                yield name, _alone(value["estimate"])
            else:
                yield from _leaves(value, f"{name}/")
        elif _is_number(value):
            yield name, _alone(value)


def _alone(value: float) -> Measured:
    return Measured(float(value), float(value), float(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
