"""What a version must not be worse in before it takes an alias from another one."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import RegistryError
from cluster.metrics import Measured, found_as, less_is_better
from cluster.records import PublishedModel

_ROUNDING = 4 * sys.float_info.epsilon


@dataclass(frozen=True)
class Requirement:
    """A metric in which a version must not be worse by more than a margin.

    Attributes:
        metric: its name, or the last words of it.
        margin: in the units of the metric, at least 0.
    """

    metric: str
    margin: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read ``METRIC`` or ``METRIC:MARGIN``.

        Raises:
            RegistryError: the margin is not a number from 0.
        """
        metric, separator, rest = text.rpartition(":")
        if not separator:
            return cls(text)
        try:
            margin = float(rest)
        except ValueError:
            margin = math.nan
        if not metric or not margin >= 0:
            raise RegistryError(f"{text!r}: expected METRIC or METRIC:MARGIN, the margin a number from 0")
        return cls(metric, margin)


def compared(
    asked: Requirement,
    candidate: PublishedModel,
    own: Mapping[str, Measured],
    champion: PublishedModel | None,
    others: Mapping[str, Measured],
) -> str:
    """Compare a version with the one whose alias it is to take.

    The version is refused when it is worse beyond doubt: when the upper end of the interval of the difference (version
    less champion) lies below ``-margin``. That interval is made of the two that were measured (Newcombe, Statistics in
    Medicine 17, 1998, method 10; Zou and Donner, Statistics in Medicine 27, 2008):
    ``difference + sqrt((high - value)^2 of the version + (value - low)^2 of the champion)``. It takes the two for
    independent, which those of the same cases are not: it is then wider than it need be, and more is let through. Where
    there are no intervals, the numbers themselves count.

    Args:
        asked: what must not be worse.
        candidate: the version.
        own: what was measured of it.
        champion: the version that has the alias; None where none has, and the metric only has to be there.
        others: what was measured of that.

    Returns:
        The numbers in words.

    Raises:
        RegistryError: the version is worse, and both numbers are told; or one of the two has no such metric, and those
            that there are are told.
    """
    name = found_as(asked.metric, own, _called(candidate))
    ours = own[name]
    if champion is None:
        return f"{name} {ours}, no champion"
    theirs = others[found_as(name, others, _called(champion))]
    left, right = (ours.negative, theirs.negative) if less_is_better(name) else (ours, theirs)
    doubt = math.hypot(left.high - left.value, right.value - right.low)
    rounding = _ROUNDING * max(abs(left.value), abs(right.value))  # .89 is not more than .01 below .9
    if left.value - right.value + doubt < -asked.margin - rounding:
        allowed = f"the margin {asked.margin:g}" + (f" and the intervals ({doubt:.3g})" if doubt else "")
        raise RegistryError(
            f"{_called(candidate)} is not promoted: its {name} is {ours}, that of {_called(champion)} is {theirs}: "
            f"worse by {right.value - left.value:.3g}, more than {allowed} {'allow' if doubt else 'allows'}"
        )
    return f"{name} {ours} against {theirs} of version {champion.version}, margin {asked.margin:g}"


def _called(model: PublishedModel) -> str:
    return f"{model.name}:{model.version}"
