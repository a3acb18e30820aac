"""A plot of points in colours, with a legend."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from data_shards.support.files import write_atomic

# Pixels.
_SIDE, _MARGIN, _LEGEND, _LINE, _DOT = 560, 40, 220, 20, 3
# Okabe and Ito's colours, which those who see red and green alike can tell apart; further classes begin anew.
COLOURS = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66),
    (0, 0, 0),
)  # fmt: skip
_PAPER, _INK, _FRAME = (255, 255, 255), (20, 24, 28), (200, 204, 208)
_MOST_NAMED = 24
_LETTERS = 28


def draw_scatter(points_N2: np.ndarray, class_N: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Draw a PNG.

    Args:
        points_N2: finite; the same scale along both axes, so that distances are what they are.
        class_N: index into ``names``.
        names: of the classes.
        title: above the plot.
        path: the file to write.

    Raises:
        MedformerError: the file cannot be written.
    """
    sheet = PIL.Image.new("RGB", (_SIDE + _LEGEND, _SIDE + _LINE), _PAPER)
    draw = PIL.ImageDraw.Draw(sheet)
    small, heading = PIL.ImageFont.load_default(12), PIL.ImageFont.load_default(14)
    draw.text((_MARGIN, 10), _printable(title), _INK, heading)
    low, high = points_N2.min(axis=0), points_N2.max(axis=0)
    scale = (_SIDE - 2 * _MARGIN) / max(float((high - low).max()), 1e-12)
    pixels_N2 = (points_N2 - (low + high) / 2) * scale * (1, -1) + (_SIDE / 2, _SIDE / 2 + _LINE)
    draw.rectangle((_MARGIN / 2, _LINE + _MARGIN / 2, _SIDE - _MARGIN / 2, _SIDE + _LINE - _MARGIN / 2), outline=_FRAME)
    for (x, y), index in zip(pixels_N2.tolist(), class_N.tolist(), strict=True):
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), COLOURS[index % len(COLOURS)])
    for place, name in enumerate(names[:_MOST_NAMED]):
        top = _MARGIN + place * _LINE
        draw.ellipse((_SIDE, top + 3, _SIDE + 8, top + 11), COLOURS[place % len(COLOURS)])
        count = int((class_N == place).sum())
        draw.text((_SIDE + 16, top), _printable(f"{name[:_LETTERS]} ({count})"), _INK, small)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


def _printable(text: str) -> str:
    """The font that comes with Pillow lacks most letters beyond Latin."""
    return text.encode("latin-1", "replace").decode("latin-1")
