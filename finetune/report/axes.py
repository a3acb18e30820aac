"""The frame of a chart: scales, ticks, grid lines and axis titles, in SVG user units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune.report.markup import Markup, element, join

# One size for all charts: about a phone's width, so that letters keep their size there.
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 12, 198


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from data to user units."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Position of ``value``."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers whose first and last enclose ``low`` and ``high``."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(multiple * unit for multiple in (1, 2, 2.5, 5, 10) if multiple * unit >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def padded(low: float, high: float, share: float = 0.1) -> tuple[float, float]:
    """A logarithmic range with room at both ends."""
    room = math.exp(share * math.log(high / low)) if high > low else 1.5
    return low / room, high * room


def axis_left(scale: Scale, ticks: list[float], title: str) -> Markup:
    """Horizontal grid lines with numbers at the left; the title stands above the first number."""
    parts: list[str] = [element("text", title, x=4, y=TOP - 2, class_="axis-title")] if title else []
    for tick in ticks:
        y = scale(tick)
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", tick_text(tick), x=LEFT - 6, y=y + 4, text_anchor="end"))
    return join(parts)


def axis_bottom(scale: Scale, ticks: list[float], title: str, bottom: float = BOTTOM) -> Markup:
    """Tick marks with numbers below, and the title under them."""
    parts: list[str] = [element("line", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom, class_="axis")]
    for tick in ticks:
        x = scale(tick)
        parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(element("text", tick_text(tick), x=x, y=bottom + 17, text_anchor="middle"))
    parts.append(element("text", title, x=(LEFT + RIGHT) / 2, y=bottom + 35, text_anchor="middle", class_="axis-title"))
    return join(parts)


def tick_text(value: float) -> str:
    """A tick label: short, without needless zeros, thousands as ``20k``."""
    if abs(value) >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:g}k"
    return f"{value:.6g}".replace("-", "−")


def drawing(title: str, *children: str, height: int = HEIGHT) -> Markup:
    """The ``svg`` element; ``title`` is what a screen reader says."""
    return element("svg", *children, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title)
