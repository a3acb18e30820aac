"""The three charts of the page: a curve, few-label scores, and an embedding plane."""

from __future__ import annotations

import math
from statistics import fmean

from finetune.report import axes, wording
from finetune.report.axes import BOTTOM, LEFT, RIGHT, TOP, Scale
from finetune.report.document import Curve, Embedding, FewLabelResult
from finetune.report.markup import Markup, element, join

COLOURS = 8
SHAPES = 6
CURVE_POINTS = 240
CHANCE_AUC = 0.5
_DODGE = 5


def glyph(index: int, x: float, y: float, size: float = 4.5, class_: str = "") -> Markup:
    """Marker number ``index``: colour and shape change together, so that neither is needed to tell them apart."""
    colour = f"series-{index % COLOURS} {class_}".strip()
    s = size
    shape = index % SHAPES
    if shape == 0:
        return element("circle", cx=x, cy=y, r=s, class_=f"mark {colour}")
    outline = {
        1: [(-s, -s), (s, -s), (s, s), (-s, s)],
        2: [(0, -1.25 * s), (1.15 * s, 0.9 * s), (-1.15 * s, 0.9 * s)],
        3: [(0, -1.4 * s), (1.4 * s, 0), (0, 1.4 * s), (-1.4 * s, 0)],
        4: [(0, 1.25 * s), (1.15 * s, -0.9 * s), (-1.15 * s, -0.9 * s)],
        5: [(-s, -s), (s, s), (0, 0), (s, -s), (-s, s), (0, 0)],
    }[shape]
    path = "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in outline) + "Z"
    return element("path", d=path, class_=f"mark {colour}")


def legend(names: list[str]) -> Markup:
    """Marker and name of each series, as a list beside the charts."""
    items = [
        element(
            "li",
            element("svg", glyph(index, 8, 8), viewBox="0 0 16 16", class_="key", aria_hidden="true"),
            f" {name}",
        )
        for index, name in enumerate(names)
    ]
    return element("ul", *items, class_="legend")


def curve(data: Curve) -> Markup:
    """One quantity over the steps; long curves are drawn as means of neighbouring points."""
    steps, values = _thinned(data)
    ticks_y = axes.nice_ticks(min(values), max(values))
    ticks_x = axes.nice_ticks(0, steps[-1])
    x = Scale(ticks_x[0], ticks_x[-1], LEFT, RIGHT)
    y = Scale(ticks_y[0], ticks_y[-1], BOTTOM, TOP + 8)
    line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
    drawn = element("polyline", points=line, class_="line series-0")
    if len(steps) == 1:
        drawn = glyph(0, x(steps[0]), y(values[0]))
    title = f"{data.name} over {data.steps[-1]} steps, from {wording.quantity(data.values[0], data.unit)} to "
    title += wording.quantity(data.values[-1], data.unit)
    frame = (axes.axis_left(y, ticks_y, data.unit), axes.axis_bottom(x, ticks_x, "optimizer step"))
    return axes.drawing(title, *frame, drawn)


def few_label(results: list[FewLabelResult], arms: list[str], name: str) -> Markup:
    """Test AUC against the number of labels: a line through the means, a pale dot for each seed.

    Args:
        results: at least one in which the AUC is defined; the others are left out.
        arms: in the order of their markers.
        name: of the data set.
    """
    aucs = [(result, [value for value in result.auc if value is not None]) for result in results]
    aucs = [(result, defined) for result, defined in aucs if defined]
    budgets = sorted({result.budget for result, _ in aucs})
    values = [value for _, defined in aucs for value in defined]
    ticks_y = axes.nice_ticks(min(values), max(values))
    x = Scale(*axes.padded(budgets[0], budgets[-1]), LEFT, RIGHT, logarithmic=True)
    y = Scale(ticks_y[0], ticks_y[-1], BOTTOM, TOP + 8)
    parts: list[str] = [
        axes.axis_left(y, ticks_y, "test AUC"),
        axes.axis_bottom(x, [float(budget) for budget in budgets], "labelled images (logarithmic)"),
    ]
    if ticks_y[0] <= CHANCE_AUC <= ticks_y[-1]:
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y(CHANCE_AUC), y2=y(CHANCE_AUC), class_="chance"))
        parts.append(element("text", "chance", x=RIGHT - 2, y=y(CHANCE_AUC) - 4, text_anchor="end"))
    for index, arm in enumerate(arms):
        own = sorted((pair for pair in aucs if pair[0].arm == arm), key=lambda pair: pair[0].budget)
        shift = (index - (len(arms) - 1) / 2) * _DODGE
        means = [(x(result.budget) + shift, y(fmean(defined))) for result, defined in own]
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in means)
        parts.append(element("polyline", points=line, class_=f"line series-{index % COLOURS}"))
        parts += [glyph(index, x(r.budget) + shift, y(value), 2.6, "seed") for r, defined in own for value in defined]
        parts += [glyph(index, px, py) for px, py in means]
    title = f"Test AUC on {name} against the number of labelled images, for {', '.join(arms)}; numbers in the table"
    return axes.drawing(title, *parts)


def plane(data: Embedding, name: str) -> Markup:
    """The embedding plane: one marker for each image, both axes on one scale, without numbers that mean nothing."""
    xs, ys = [point[0] for point in data.points], [point[1] for point in data.points]
    size = axes.WIDTH - 24
    extent = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    unit = (size - 16) / extent
    centre_x, centre_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    height = math.ceil(max((max(ys) - min(ys)) * unit, 120) + 52)
    marks = [
        glyph(label, 20 + size / 2 + (px - centre_x) * unit, (height - 24) / 2 - (py - centre_y) * unit, 3.0, "image")
        for (px, py), label in zip(data.points, data.labels, strict=True)
    ]
    first, second = (f"{share:.0%}" for share in data.explained)
    labels = (
        element("text", f"first component, {first} of the variance", x=190, y=height - 6, text_anchor="middle"),
        element(
            "text",
            f"second, {second}",
            transform=f"translate(11 {(height - 24) / 2:.0f}) rotate(-90)",
            text_anchor="middle",
        ),
    )
    frame = element("rect", x=18, y=2, width=size + 4, height=height - 26, class_="frame")
    title = f"{len(data.points)} images of {name} on their first two principal components, coloured by label"
    return axes.drawing(title, frame, join(marks), *labels, height=height)


def _thinned(data: Curve) -> tuple[list[float], list[float]]:
    """At most ``CURVE_POINTS`` points, each the mean of a run of neighbours."""
    size = math.ceil(len(data.steps) / CURVE_POINTS)
    runs = range(0, len(data.steps), size)
    steps = [fmean(data.steps[start : start + size]) for start in runs]
    return steps, [fmean(data.values[start : start + size]) for start in runs]
