"""What the drawings of the documents are made of: boxes, words and arrows of one look, as SVG that stands alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image

INK, SOFT, LINE, PAPER = "#1d2b33", "#5a6b75", "#c3ced4", "#ffffff"
TEAL, BLUE, AMBER = "#0f766e", "#1d4ed8", "#b45309"
FONT = "font-family='Helvetica, Arial, sans-serif'"


class Drawing:
    """An SVG of fixed size on a white card, so that it is legible on a dark page too.

    Args:
        width: in pixels.
        height: in pixels.
        title: what the picture shows, for whoever does not see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = f"{width} {height}"
        self.parts = [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.size}' role='img' {FONT}>",
            f"<title>{escape(title)}</title>",
            "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
            f"<path d='M0 0L8 4L0 8z' fill='{SOFT}'/></marker></defs>",
            f"<rect width='{width}' height='{height}' rx='10' fill='{PAPER}'/>",
        ]

    def box(self, x: float, y: float, width: float, height: float, *, fill: str = PAPER, edge: str = LINE) -> None:
        """A rounded rectangle."""
        self.parts.append(
            f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='7' fill='{fill}' stroke='{edge}'/>"
        )

    def words(
        self, x: float, y: float, text: str, *, size: float = 13, ink: str = INK, bold: bool = False,
        anchor: str = "start", mono: bool = False,
    ) -> None:  # fmt: skip
        """A line of text whose base line is at ``y``."""
        weight = " font-weight='600'" * bold
        family = " font-family='ui-monospace, Menlo, Consolas, monospace'" * mono
        self.parts.append(
            f"<text x='{x:g}' y='{y:g}' font-size='{size:g}' fill='{ink}' text-anchor='{anchor}'{weight}{family}>"
            f"{escape(text)}</text>"
        )

    def lines(self, x: float, y: float, texts: Sequence[str], *, step: float = 17, **look: object) -> None:
        """Lines of text below each other."""
        for number, text in enumerate(texts):
            self.words(x, y + number * step, text, **look)  # type: ignore[arg-type]

    def arrow(self, *points: tuple[float, float]) -> None:
        """An arrow along the points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f"<polyline points='{path}' fill='none' stroke='{SOFT}' stroke-width='1.5' marker-end='url(#tip)'/>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, ink: str = LINE, width: float = 1) -> None:
        """A straight line."""
        self.parts.append(
            f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{ink}' stroke-width='{width:g}'/>"
        )

    def picture(self, x: float, y: float, side: float, pixels_HW: np.ndarray) -> None:
        """An 8-bit grey image, stored without compression so that its bytes are the same with every zlib."""
        stored = io.BytesIO()
        PIL.Image.fromarray(pixels_HW).save(stored, "png", compress_level=0)
        data = base64.b64encode(stored.getvalue()).decode()
        self.parts.append(
            f"<image x='{x:g}' y='{y:g}' width='{side:g}' height='{side:g}' href='data:image/png;base64,{data}'/>"
        )

    def text(self) -> str:
        """The file."""
        return "\n".join([*self.parts, "</svg>"]) + "\n"
