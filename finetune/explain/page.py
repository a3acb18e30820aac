"""The maps of a run on one page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.explain.pictures import AGAINST, FOR
from finetune.report.markup import Markup, element
from finetune.report.shell import document
from finetune.report.wording import NOT_FOR_CLINICAL_USE

MOST_BYTES = 16 << 20
"""Of pictures that stand on the page; further ones are in the folder."""
_STYLE = """
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.2rem; }
.maps img { max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 3px; }
.maps figcaption { overflow-wrap: anywhere; }
.scale { display: flex; gap: 0.5rem; align-items: center; font-size: 0.82rem; margin: 0.2rem 0; }
.scale i { flex: 1 1 auto; max-width: 12rem; height: 0.6rem; border-radius: 3px; border: 1px solid var(--rule); }
.both i { background: linear-gradient(to right, AGAINST, transparent, FOR); }
.one i { background: linear-gradient(to right, transparent, FOR); }
.weak { color: var(--warn); font-size: 0.82rem; display: block; }
""".replace("AGAINST", f"rgb{AGAINST}").replace("FOR", f"rgb{FOR}")
_HOW = (
    "Left of each map is the image as it is, of volumes slice by slice. Orange speaks for the class, blue against it. "
    "Each map has a scale of its own, which stands below it with its lowest and highest value: compare the numbers, "
    "not the colours, of two maps. A map shows what the model used, not what is wrong with the patient, and two "
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
        several = _several(rows)
        pairs = zip(rows, pictures, strict=False)
        figures = [_figure(row, content, named=row["key"] in several) for row, content in pairs]
        parts += [element("p", _HOW), element("div", *figures, class_="maps")]
        if left := len(rows) - len(pictures):
            parts.append(element("p", f"{left} further maps are in the folder beside this page."))
    return document(title, element("body", element("main", *parts)), style=_STYLE, images=True)


def _several(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys of the cases that have several images, which have to be told apart."""
    images = {(row["key"], row["study"], row["image"]) for row in rows}
    return {key for key, count in Counter(key for key, _, _ in images).items() if count > 1}


def _figure(row: Mapping[str, Any], content: bytes, *, named: bool) -> Markup:
    """A map with its scale and its numbers; which image it is of is named where the case has several."""
    said = f"{row['key']}: {row['class']}"
    more = f"study {row['study']}, {row['image']}; " * named + f"{row['says']}"
    ends = f"from {_number(row['lowest'])} to {_number(row['highest'])} ({row['unit']})"
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    shown = element("img", src=source, alt=f"map of {said}, {more}, {ends}", loading="lazy")
    both = row["lowest"] < 0
    bar = element(
        "div",
        element("span", _number(-row["scale"]) if both else "0"),
        element("i"),
        element("span", _number(row["scale"])),
        class_="scale both" if both else "scale one",
        role="img",
        aria_label=f"the colours end at {_number(row['scale'])}",
    )
    lines = [element("b", said), element("br"), element("small", more), element("br"), element("small", ends)]
    if row["note"]:
        lines.append(element("span", row["note"][0].upper() + row["note"][1:], class_="weak"))
    return element("figure", shown, bar, element("figcaption", *lines))


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
