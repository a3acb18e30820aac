"""The figures of a run, in SVG: what each case was said to be, curves with bands, calibration, and shares with bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from finetune.report import axes
from finetune.report.axes import BOTTOM, LEFT, RIGHT, TOP, Scale
from finetune.report.charts import COLOURS, glyph
from finetune.report.markup import Markup, element, join
from finetune.report.run.numbers import Bin, CurveWithBand
from finetune.report.run.results import Results
from finetune.scores.bootstrap import Interval

_TICKS = [0.0, 0.25, 0.5, 0.75, 1.0]
_SIDE = Scale(0, 1, LEFT, RIGHT)
_UP = Scale(0, 1, BOTTOM, TOP + 8)
_COLUMNS = 61
_ROW = 84
_SPREAD = 2.4
"""Radius of a dot of one case; less where many stand on each other."""


def dots(results: Results) -> Markup:
    """Each case of a binary target as a dot at its probability, a row for each class, with the threshold."""
    names, positive = results.classes, results.positive
    order = [positive, 1 - positive]
    bottom = TOP + 2 * _ROW
    parts: list[str] = []
    columns_N = np.rint(results.mean[:, positive] * (_COLUMNS - 1)).astype(int)
    most = max(
        np.bincount(columns_N[results.labels[:, 0] == place], minlength=_COLUMNS).max(initial=1) for place in order
    )
    step = min(2 * _SPREAD, (_ROW - 30) / most)
    for row, place in enumerate(order):
        base = TOP + (row + 1) * _ROW - 8
        mine_N = results.labels[:, 0] == place
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=base + 5, y2=base + 5, class_="grid"))
        parts.append(element("text", f"{names[place]} ({mine_N.sum()})", x=4, y=base - _ROW + 24, class_="row-name"))
        height = np.zeros(_COLUMNS, int)
        for column in columns_N[mine_N].tolist():
            x, y = _SIDE(column / (_COLUMNS - 1)), base - step * height[column]
            parts.append(glyph(row, x, y, min(_SPREAD, max(1.0, step * 0.7)), "image"))
            height[column] += 1
    if results.threshold is not None:
        limit = results.threshold if positive else 1 - results.threshold
        x = _SIDE(limit)
        parts.append(element("line", x1=x, x2=x, y1=TOP + 4, y2=bottom, class_="threshold"))
        anchor, shift = ("start", 4) if limit < 0.7 else ("end", -4)
        parts.append(element("text", f"threshold {limit:.2f}", x=x + shift, y=TOP + 8, text_anchor=anchor))
    frame = axes.axis_bottom(_SIDE, _TICKS, f"probability of {names[positive]}", bottom)
    title = f"Probability of {names[positive]} of each of {len(results)} images, by their true class"
    return axes.drawing(title, frame, *parts, height=bottom + 42)


def curves(
    drawn: Sequence[tuple[str, CurveWithBand]],
    *,
    x: str,
    y: str,
    title: str,
    chance: float | None = None,
    point: tuple[float, float] | None = None,
) -> Markup:
    """Curves in the unit square, with bands where they have some.

    Args:
        drawn: name and curve of each class.
        x: title of the axis.
        y: title of the axis.
        title: what a screen reader says.
        chance: level that guessing has; None draws the diagonal.
        point: where decisions are made.
    """
    parts: list[str] = [axes.axis_left(_UP, _TICKS, y), axes.axis_bottom(_SIDE, _TICKS, x)]
    ends = (0.0, 1.0) if chance is None else (chance, chance)
    parts.append(element("line", x1=_SIDE(0), x2=_SIDE(1), y1=_UP(ends[0]), y2=_UP(ends[1]), class_="chance"))
    for index, (_, curve) in enumerate(drawn):
        colour = f"series-{index % COLOURS}"
        if len(curve.low):
            around = [
                *zip(curve.places, curve.high, strict=True),
                *zip(curve.places[::-1], curve.low[::-1], strict=True),
            ]
            path = "M" + "L".join(f"{_SIDE(a):.1f} {_UP(b):.1f}" for a, b in around) + "Z"
            parts.append(element("path", d=path, class_=f"band {colour}"))
        line = " ".join(f"{_SIDE(a):.1f},{_UP(b):.1f}" for a, b in zip(curve.x, curve.y, strict=True))
        parts.append(element("polyline", points=line, class_=f"line {colour}"))
    if point is not None:
        parts.append(glyph(3, _SIDE(point[0]), _UP(point[1]), 5))
    return axes.drawing(title, *parts)


def calibration(bins: Sequence[Bin], what: str) -> Markup:
    """How often what was said came true, against how probable it was said to be."""
    parts: list[str] = [
        axes.axis_left(_UP, _TICKS, "came true"),
        axes.axis_bottom(_SIDE, _TICKS, what),
        element("line", x1=_SIDE(0), x2=_SIDE(1), y1=_UP(0), y2=_UP(1), class_="chance"),
    ]
    for each in bins:
        x = _SIDE(each.said)
        if not math.isnan(each.came.low):
            parts.append(
                element("line", x1=x, x2=x, y1=_UP(each.came.low), y2=_UP(each.came.high), class_="whisker series-0")
            )
        parts.append(glyph(0, x, _UP(each.came.estimate)))
    return axes.drawing(f"Calibration: {what} against the share that came true, in {len(bins)} bins", *parts)


def bars(rows: Sequence[tuple[str, Interval | None]], *, x: str, title: str, chance: float | None = None) -> Markup:
    """Shares of several classes with their intervals, a row for each."""
    row = 36
    bottom = TOP + row * len(rows) + 4
    parts: list[str] = [axes.axis_bottom(_SIDE, _TICKS, x, bottom)]
    if chance is not None:
        parts.append(element("line", x1=_SIDE(chance), x2=_SIDE(chance), y1=TOP, y2=bottom, class_="chance"))
    for index, (name, found) in enumerate(rows):
        y = TOP + row * index + 26
        parts.append(element("text", name, x=LEFT, y=y - 10, class_="row-name"))
        if found is None or math.isnan(found.estimate):
            parts.append(element("text", "none", x=LEFT, y=y + 4))
            continue
        if not math.isnan(found.low):
            ends = {"x1": _SIDE(found.low), "x2": _SIDE(found.high), "y1": y, "y2": y}
            parts.append(element("line", **ends, class_="whisker series-0"))
        parts.append(glyph(0, _SIDE(found.estimate), y))
        parts.append(element("text", f"{found.estimate:.2f}", x=RIGHT, y=y - 10, text_anchor="end"))
    return axes.drawing(title, *parts, height=bottom + 42)


def against_truth(truth_N: np.ndarray, said_N: np.ndarray, name: str) -> Markup:
    """Predicted numbers against true ones, with the line on which they are equal."""
    ticks = axes.nice_ticks(float(min(truth_N.min(), said_N.min())), float(max(truth_N.max(), said_N.max())))
    x = Scale(ticks[0], ticks[-1], LEFT, RIGHT)
    y = Scale(ticks[0], ticks[-1], BOTTOM, TOP + 8)
    marks = [glyph(0, x(a), y(b), 3.0, "image") for a, b in zip(truth_N.tolist(), said_N.tolist(), strict=True)]
    equal = element("line", x1=x(ticks[0]), x2=x(ticks[-1]), y1=y(ticks[0]), y2=y(ticks[-1]), class_="chance")
    frame = (axes.axis_left(y, ticks, "predicted"), axes.axis_bottom(x, ticks, f"true {name}"))
    return axes.drawing(f"Predicted {name} against the true one, {len(marks)} images", *frame, equal, join(marks))
