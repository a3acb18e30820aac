"""What every page is wrapped in: a head that forbids any request to the outside, and a navigation."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from finetune.report.markup import Markup, element, join


def document(title: str, body: Markup, *, style: str = "", script: str = "", images: bool = False) -> str:
    """A whole page as text.

    The policy in its head makes the browser itself refuse any request, any image that is not in the page where
    ``images`` is true, and any script but this one.

    Args:
        title: of the page.
        body: the ``body`` element.
        style: beside that of all pages.
        script: the one script of the page; empty for none.
        images: whether the page holds images.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    if images:
        policy += "; img-src data:"
    scripts: list[str] = []
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        scripts = [element("script", Markup(script))]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(resource("style.css") + style)),
    )
    return f"<!doctype html>\n{element('html', head, body, *scripts, lang='en')}\n"


def resource(name: str) -> str:
    """A file that lies beside this one."""
    return resources.files("finetune.report").joinpath(name).read_text()


def section(title: str, *children: str) -> Markup:
    """A part of a page with its heading, which the navigation leads to."""
    return element("section", element("h2", title), *children, id=anchor(title))


def navigation(titles: Sequence[str]) -> Markup:
    """Links to the sections with these titles."""
    links = [element("li", element("a", title, href=f"#{anchor(title)}")) for title in titles]
    return element("nav", element("ul", *links), class_="sections", aria_label="Sections of this page")


def anchor(title: str) -> str:
    """The name by which a link finds a section."""
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def notices(texts: Sequence[str]) -> Markup:
    """What has to be known, a box each."""
    return join(element("p", text, class_="notice") for text in texts)
