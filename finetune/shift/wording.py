"""A measurement of robustness in words."""

from __future__ import annotations

import math

from finetune.scores.bootstrap import Interval
from finetune.shift.robustness import Robustness


def said(found: Interval, *, signed: bool = False) -> str:
    """A score with its interval; ``signed`` for a difference."""
    sign = "+" if signed else ""
    value = f"{found.estimate:{sign}.3f}"
    if math.isnan(found.low):
        return f"{value} (no interval)"
    return f"{value} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


def told(found: Robustness) -> list[str]:
    """What was found, and how sure, a sentence each."""
    kind, overall = found.metrics[0], found.overall
    clean, after = found.rows[0].scores[kind.name], overall.scores[kind.name]
    lines = [
        f"{kind.words} {clean.estimate:.3f} on images as they are, {after.estimate:.3f} in the mean over corruptions "
        f"and severities: {said(overall.changes[kind.name], signed=True)}."
    ]
    sign = 1 if kind.rises else -1
    single = [summary for summary in found.summaries[:-1] if summary.changes]
    if len(single) > 1:
        worst = min(single, key=lambda summary: sign * summary.changes[kind.name].estimate)
        least = max(single, key=lambda summary: sign * summary.changes[kind.name].estimate)
        if sign * worst.changes[kind.name].estimate >= 0:
            lines.append("None of the corruptions lowers it.")
        else:
            lines.append(
                f"Most is lost to {worst.corruption} ({worst.changes[kind.name].estimate:+.3f}), least to "
                f"{least.corruption} ({least.changes[kind.name].estimate:+.3f})."
            )
    if "error" in overall.scores:
        times = "" if math.isnan(overall.relative) else f", {overall.relative:.2f} times that of images as they are"
        lines.append(f"Mean corruption error {said(overall.scores['error'])}{times}: one less the balanced accuracy.")
    return lines
