"""HTML and SVG as nested calls; text is escaped unless it is markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "br", "hr", "img", "input"})
_SHAPES = frozenset({"line", "circle", "path", "rect", "polyline"})


class Markup(str):
    """Text that is markup and goes out as it is. Everything else is escaped."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """One element with its children.

    Args:
        name: tag name.
        children: :class:`Markup` is taken as it is, any other string is escaped.
        attributes: ``class_`` stands for ``class``, ``aria_label`` for ``aria-label``; None leaves the attribute out;
            numbers are written with two decimals at most.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID or name in _SHAPES:
        return Markup(f"<{name}{written}{'/' * (name in _SHAPES)}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Children one after the other, those that are not markup escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")
