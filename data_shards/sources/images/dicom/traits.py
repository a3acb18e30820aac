"""What may differ between images at one place of a patient, and which of it is time."""

from __future__ import annotations

from dataclasses import dataclass


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


def name_of(trait: int) -> str:
    """How messages call the trait at this place in ``traits`` of a plane."""
    return TRAITS[trait].names[0] if trait < len(TRAITS) else DIMENSION


def as_number(name: str, text: str) -> float | None:
    """The value of a trait as a number that orders it; None when it is none.

    Times of day and dates with times are in seconds.
    """
    text = text.strip()
    try:
        if name == "AcquisitionTime":  # HHMMSS.FFFFFF (PS3.5 section 6.2, TM)
            text = text.replace(":", "")
            return 3600.0 * int(text[:2]) + 60.0 * int(text[2:4] or 0) + float(text[4:] or 0)
        return float(text.partition("+")[0] if name.endswith("DateTime") else text)
    except ValueError:
        return None
