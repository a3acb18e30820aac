"""What a measurement of robustness says, on one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.report.markup import Markup, element
from finetune.report.shell import document
from finetune.report.wording import NOT_FOR_CLINICAL_USE
from finetune.shift.base import Corruption
from finetune.shift.robustness import Robustness, Row, Summary
from finetune.shift.wording import said, told

_HOW = (
    "Severities run from 1 to 5; the amounts are ours, and chosen before any classifier was asked. Changes are made by "
    "computation: they show what a classifier stands, not how it does on another scanner. Intervals are of 95 %, over "
    "subjects; a change is compared with the same subjects' images as they are. The error is one less the balanced "
    "accuracy."
)


def render(found: Robustness, corruptions: Sequence[Corruption], name: str, notes: Sequence[str]) -> str:
    """The page as text.

    Args:
        found: what was measured.
        corruptions: in their order.
        name: of the data.
        notes: what has to be known, a sentence each.
    """
    facts = {"data": name, "cases": str(found.cases), "subjects": str(found.subjects)}
    items = [element("li", f"{what} ", element("b", value)) for what, value in facts.items()]
    title = "When acquisition changes"
    parts = [element("h1", title), element("ul", *items, class_="facts")]
    parts += [element("p", element("b", line)) for line in told(found)]
    parts += [element("p", note, class_="notice") for note in (NOT_FOR_CLINICAL_USE, *notes)]
    parts += [element("h2", "By corruption"), _means(found, corruptions)]
    parts += [element("h2", "By severity"), _severities(found), element("p", _HOW)]
    return document(title, element("body", element("main", *parts)))


def _means(found: Robustness, corruptions: Sequence[Corruption]) -> Markup:
    deciding, clean = found.metrics[0], found.rows[0]
    words = {corruption.name: corruption.words for corruption in corruptions}
    rows = [["images as they are", "", said(clean.scores[deciding.name]), "", *_of_classes(clean)]]
    rows += [
        [
            summary.corruption or "all",
            words.get(summary.corruption, "mean of all"),
            said(summary.scores[deciding.name]),
            said(summary.changes[deciding.name], signed=True),
            *_of_classes(summary),
        ]
        for summary in found.summaries
    ]
    head = ["corruption", "what it is like", deciding.words, "change"]
    head += [name.replace("_", " ") for name in _SHOWN if name in clean.scores]
    return _table("Means over severities", head, rows)


def _of_classes(row: Row | Summary) -> list[str]:
    return [said(row.scores[name]) for name in _SHOWN if name in row.scores]


_SHOWN = ("error", "calibration_error")


def _severities(found: Robustness) -> Markup:
    name, changed = found.metrics[0].name, found.rows[1:]
    severities = sorted({row.severity for row in changed})
    by_place = {(row.corruption, row.severity): row for row in changed}
    rows = [
        [corruption, *(said(by_place[corruption, severity].scores[name]) for severity in severities)]
        for corruption in dict.fromkeys(row.corruption for row in changed)
    ]
    return _table(found.metrics[0].words, ["corruption", *(f"severity {each}" for each in severities)], rows)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    heads = element("tr", *(element("th", text, scope="col") for text in head))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", text) for text in row[1:])) for row in rows
    ]
    whole = element("table", element("caption", caption), element("thead", heads), element("tbody", *body))
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)
