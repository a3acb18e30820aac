"""How fast a run goes: as told, as measured, or estimated from the peak of a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """The speed of a run.

    Attributes:
        step_s: seconds of a step of all ranks together.
        basis: where that comes from, in words.
        estimated: whether it is neither told nor measured.
    """

    step_s: float
    basis: str
    estimated: bool


def told(images_per_s: float, rows: int) -> Rate:
    """Of images per second of one rank."""
    return Rate(rows / images_per_s, f"{images_per_s:g} images/s of each GPU, as told", False)


def measured(images_per_s: float, rows: int, device: str, ranks: int) -> Rate:
    """Of images per second that one worker made here."""
    others = "" if ranks == 1 else f"; {ranks} are taken to be as fast each"
    return Rate(
        rows / images_per_s, f"{images_per_s:.3g} images/s of one worker, measured here ({device}){others}", False
    )


def from_peak(flops: float, gpu: str, tflops: float, utilisation: float) -> Rate:
    """An estimate from operations.

    Args:
        flops: of a step of one rank, with what is computed again.
        gpu: its name.
        tflops: its peak.
        utilisation: the fraction of the peak that is taken to be reached.
    """
    step_s = flops / (tflops * 1e12 * utilisation)
    return Rate(step_s, f"an estimate: {utilisation:.0%} of the {tflops:g} TFLOP/s of {gpu}, not measured", True)
