"""What may differ between images at one place of a patient, and which of it is time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Trait:
    """One thing in which images at one place differ.

    Attributes:
        names: attributes that say it; the first that a frame has counts.
        time: whether it is an order in time.
        ranked: whether its order at each place tells volumes apart even where its values differ from place to place,
            as trigger times do when the heart beats faster, and acquisition times always.
        steady: whether slices of one volume share its value, so that it tells volumes apart where no place is known.
    """

    names: tuple[str, ...]
    time: bool = False
    ranked: bool = False
    steady: bool = True


# From the most to the least telling.
TRAITS = (
    Trait(("EchoTime", "EffectiveEchoTime")),
    Trait(("InversionTime",)),
    Trait(("FlipAngle",)),
    Trait(("KVP",)),
    Trait(("ConvolutionKernel",)),
    Trait(("TemporalPositionIdentifier", "TemporalPositionIndex"), time=True, ranked=True),
    Trait(("TemporalPositionTimeOffset",), time=True, ranked=True),
    Trait(("FrameReferenceTime",), time=True, ranked=True),
    Trait(("DiffusionBValue",)),
    Trait(("DiffusionGradientOrientation",)),
    Trait(("SequenceName",)),
    Trait(("ImageType",)),
    Trait(("TriggerTime", "NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime"), time=True, ranked=True),
    Trait(("NominalPercentageOfCardiacPhase",), time=True, ranked=True),
    Trait(("CardiacCyclePosition",), time=True),
    Trait(("RespiratoryCyclePosition",), time=True),
    Trait(("StackID",)),
    Trait(("AcquisitionNumber", "FrameAcquisitionNumber"), time=True, ranked=True, steady=False),
    Trait(("FrameReferenceDateTime", "FrameAcquisitionDateTime"), time=True, ranked=True, steady=False),
    Trait(("AcquisitionDateTime",), time=True, ranked=True, steady=False),
    Trait(("AcquisitionTime",), time=True, ranked=True, steady=False),
)

# Beside these, by the numbers that the file itself gives to its dimensions, and at last by the instance numbers.
DIMENSION, NUMBER = "DimensionIndexValues", "InstanceNumber"

_DAY_S = 86400.0
_EPOCH = datetime(2000, 1, 1)  # near enough that doubles hold microseconds
# YYYYMMDDHHMMSS.FFFFFF&ZZXX, of which all but the year may be left out from the right (PS3.5 section 6.2, DT).
_DATE_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(\d\d(?:\.\d*)?)?)?)?)?)?(?:([+-])(\d\d)(\d\d))?", re.ASCII
)


def name_of(trait: int) -> str:
    """How messages call the trait at this place in ``traits`` of a plane."""
    return TRAITS[trait].names[0] if trait < len(TRAITS) else DIMENSION


def as_number(text: str) -> float | None:
    """The number that a text says; None when it says none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def as_order(name: str, texts: Sequence[str]) -> list[float | None]:
    """Numbers that order values of a trait; None for those that are none.

    Times of day and dates with times are in seconds. Times of day that lie more than half a day apart have midnight
    between them. Dates with times are compared in UTC where all of them state their offset from it, and as the clocks
    on the wall where one does not.
    """
    if name.endswith("DateTime"):
        moments = [_moment(text.strip()) for text in texts]
        stated = all(moment is None or moment[1] is not None for moment in moments)
        return [None if moment is None else moment[0] - (moment[1] or 0.0) * stated for moment in moments]
    if name != "AcquisitionTime":
        return [as_number(text) for text in texts]
    clock = [_time_of_day(text.strip()) for text in texts]
    known = [time for time in clock if time is not None]
    if not known or max(known) - min(known) <= _DAY_S / 2:
        return clock
    return [time + _DAY_S if time is not None and time < _DAY_S / 2 else time for time in clock]


def _time_of_day(text: str) -> float | None:
    """Seconds since midnight from HHMMSS.FFFFFF (PS3.5 section 6.2, TM), with colons as ACR-NEMA wrote them."""
    text = text.replace(":", "")
    try:
        return 3600.0 * int(text[:2]) + 60.0 * int(text[2:4] or 0) + float(text[4:] or 0)
    except ValueError:
        return None


def _moment(text: str) -> tuple[float, float | None] | None:
    """Seconds since 2000 by the clock on the wall, and how far it is ahead of UTC, None where that is not said."""
    if not (found := _DATE_TIME.fullmatch(text)):
        return None
    year, month, day, hour, minute, second, sign, hours, minutes = found.groups()
    try:
        start = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0))
    except ValueError:
        return None
    seconds = (start - _EPOCH).total_seconds() + float(second or 0)
    if sign is None:
        return seconds, None
    return seconds, float(sign + "1") * (3600 * int(hours) + 60 * int(minutes))
