"""The maps of a run on one page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.report.markup import Markup, element
from finetune.report.shell import document
from finetune.report.wording import NOT_FOR_CLINICAL_USE

MOST_BYTES = 16 << 20
"""Of pictures that stand on the page; further ones are in the folder."""
_STYLE = """
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.2rem; }
.maps img { max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 3px; }
"""
_HOW = (
    "Left of each map is the image as it is, of volumes slice by slice. Orange speaks for the class, blue against it; "
    "each map has a scale of its own. A map shows what the model used, not what is wrong with the patient, and two "
    "methods may differ."
)


def render(
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[bytes],
) -> str:
    """The page as text.

    Args:
        title: of the page.
        facts: in its head, by name.
        notes: what has to be known, a sentence each.
        rows: of the table of maps, those with a picture first.
        pictures: PNG of the first rows.
    """
    items = [element("li", f"{name} ", element("b", value)) for name, value in facts.items()]
    parts: list[str] = [element("h1", title), element("ul", *items, class_="facts")]
    parts += [element("p", note, class_="notice") for note in (NOT_FOR_CLINICAL_USE, *notes)]
    if rows:
        figures = [_figure(row, content) for row, content in zip(rows, pictures, strict=False)]
        parts += [element("p", _HOW), element("div", *figures, class_="maps")]
        if left := len(rows) - len(pictures):
            parts.append(element("p", f"{left} further maps are in the folder beside this page."))
    return document(title, element("body", element("main", *parts)), style=_STYLE, images=True)


def _figure(row: Mapping[str, Any], content: bytes) -> Markup:
    said = f"{row['key']}: {row['class']}"
    more = f"study {row['study']}, {row['image']}; {row['says']}"
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    shown = element("img", src=source, alt=f"map of {said}, {more}", loading="lazy")
    return element("figure", shown, element("figcaption", element("b", said), element("br"), element("small", more)))
