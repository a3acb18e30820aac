"""Draw every figure anew, beside its script."""

from __future__ import annotations

from pathlib import Path

from docs.figures import architecture, overview

FIGURES = {"architecture.svg": architecture.draw, "overview.svg": overview.draw}

if __name__ == "__main__":
    for name, draw in FIGURES.items():
        Path(__file__).with_name(name).write_text(draw())
