"""How often a checkpoint pays, and how much of the time of a run is kept when machines fail."""

from __future__ import annotations

import math


def young_s(write_s: float, mtbf_s: float) -> float:
    """Work between two checkpoints to first order, ``sqrt(2 C M)`` (Young, CACM 1974).

    Args:
        write_s: ``C``, seconds that training waits for a checkpoint.
        mtbf_s: ``M``, mean time between two failures of the whole run.
    """
    return math.sqrt(2 * write_s * mtbf_s)


def daly_s(write_s: float, mtbf_s: float) -> float:
    """Work between two checkpoints to higher order (Daly, FGCS 2006, equation 37).

    ``sqrt(2 C M) (1 + sqrt(C / 2M) / 3 + (C / 2M) / 9) - C`` for ``C < 2 M``, else ``M``.

    Args:
        write_s: see :func:`young_s`.
        mtbf_s: see :func:`young_s`.
    """
    if write_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = write_s / (2 * mtbf_s)
    return young_s(write_s, mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write_s


def goodput(work_s: float, write_s: float, restart_s: float, mtbf_s: float | None) -> float:
    """The fraction of time that ends up as work in a checkpoint.

    Failures come at random at a constant rate, also while a checkpoint is written or a run starts again. Then a
    stretch of work with its checkpoint takes ``M exp(R / M) (exp((tau + C) / M) - 1)`` on average (Daly, equation 20),
    of which ``tau`` is kept.

    Args:
        work_s: ``tau``, work between two checkpoints.
        write_s: ``C``, see :func:`young_s`.
        restart_s: ``R``, from a failure to the next step.
        mtbf_s: ``M``; None when nothing fails.
    """
    if mtbf_s is None:
        return work_s / (work_s + write_s)
    try:
        taken_s = mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1((work_s + write_s) / mtbf_s)
    except OverflowError:
        return 0.0
    return work_s / taken_s
