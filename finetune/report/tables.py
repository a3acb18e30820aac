"""The tables of the page, as HTML."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from html import unescape

from finetune.report import wording
from finetune.report.document import (
    Confusion,
    Curve,
    DataSet,
    Difference,
    Estimate,
    FewLabelResult,
    GroupResult,
    ReportData,
)
from finetune.report.markup import Markup, element, join

_NOTHING = Markup("<span class='none'>–</span>")


def name_of(dataset: DataSet) -> Markup:
    """The name of a data set, with its mark when it is not official: the only way the page writes a name."""
    if dataset.official:
        return element("span", dataset.name, class_="data")
    mark = element("span", wording.mark(dataset), class_="mark-unofficial", title=dataset.note)
    return element("span", dataset.name, " ", mark, class_="data")


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Container[int]) -> Markup:
    """A table that scrolls sideways on a narrow screen.

    Args:
        caption: said above it.
        head: column titles.
        rows: cells; the first of each row is its heading.
        numeric: the columns of numbers, which are aligned to the right.
    """

    def cell(index: int, text: str) -> Markup:
        if index == 0:
            return element("th", text, scope="row")
        return element("td", text, class_="number" if index in numeric else None)

    heads = [
        element("th", text, scope="col", class_="number" if index in numeric else None)
        for index, text in enumerate(head)
    ]
    body = [element("tr", *(cell(index, text) for index, text in enumerate(row))) for row in rows]
    return boxed(caption, element("table", element("thead", element("tr", *heads)), element("tbody", *body)))


def boxed(caption: str, whole: Markup) -> Markup:
    """A table in a box in which it scrolls sideways where it is wider than the screen; its caption stays in view."""
    spoken = unescape(re.sub(r"<[^>]*>", "", caption)) if isinstance(caption, Markup) else caption
    box = element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=spoken)
    return element("figure", element("figcaption", caption), box, class_="table")


def datasets(data: ReportData) -> Markup:
    """What the images are, their splits, licence and origin."""
    rows = [
        [
            name_of(each),
            join([each.title, element("br"), element("em", each.note)]) if each.note else each.title,
            each.task,
            " / ".join(f"{count} {split}" for split, count in each.images.items()),
            each.licence,
            element("code", each.checksum) if each.checksum else _NOTHING,
        ]
        for each in data.datasets
    ]
    head = ["data set", "images of", "task", "images", "licence", "checksum"]
    return table("Data sets", head, rows, numeric=())


def few_label(data: ReportData, results: Sequence[FewLabelResult], dataset: DataSet) -> Markup:
    """Scores of every arm and number of labels on one data set, with the scores of the single seeds."""
    ordered = sorted(results, key=lambda result: (result.budget, list(data.arms).index(result.arm)))
    rows = [
        [
            str(result.budget),
            result.arm,
            str(len(result.seeds)),
            wording.spread(result.auc),
            wording.spread(result.accuracy),
            wording.spread(result.balanced_accuracy),
            " ".join(wording.score(value) for value in result.auc),
        ]
        for result in ordered
    ]
    head = ["labels", "arm", "seeds", "AUC", "accuracy", "balanced accuracy", "AUC of each seed"]
    caption = join([name_of(dataset), ": test scores, mean over seeds (lowest–highest)"])
    return table(caption, head, rows, numeric=range(2, 7))


def differences(data: ReportData, rows: Sequence[Difference], dataset: DataSet) -> Markup:
    """Paired differences between arms on one data set."""
    cells = [
        [
            str(row.budget),
            f"{row.arm} − {row.baseline}",
            row.metric,
            wording.signed(row.mean),
            wording.interval(row.low, row.high),
            wording.verdict(row),
        ]
        for row in sorted(rows, key=lambda row: row.budget)
    ]
    head = ["labels", "difference", "in", "mean", "interval", "verdict"]
    caption = join([name_of(dataset), f": paired differences, {data.interval}"])
    return table(caption, head, cells, numeric=range(3, 5))


def probes(data: ReportData) -> Markup:
    """Probe scores of every data set, raw pixels beside the networks."""
    rows = [
        [
            name_of(data.dataset(row.dataset)),
            row.probe,
            str(row.labels),
            row.features,
            _estimate(row.auc),
            _estimate(row.accuracy),
            _estimate(row.balanced_accuracy),
        ]
        for row in data.probes
    ]
    head = ["data set", "probe", "labels", "features", "AUC", "accuracy", "balanced accuracy"]
    return table(f"Test scores with {data.probe_interval}", head, rows, numeric=range(4, 7))


def groups(data: ReportData, results: Sequence[GroupResult], dataset: DataSet) -> Markup:
    """Scores of every group of one column, those of one set of predictions below each other."""
    rows = [
        [
            row.group,
            str(row.images),
            str(row.subjects),
            row.model if row.weights == "none" else f"{row.model}, {row.weights}",
            row.arm,
            row.labels,
            str(row.draws),
            _estimate(row.auc),
            _estimate(row.accuracy),
            wording.score(row.constant),
            _estimate(row.balanced_accuracy),
        ]
        for row in results
    ]
    head = [
        results[0].group_by, "test cases", "subjects", "features of", "arm", "labels", "draws", "AUC", "accuracy",
        "accuracy of the constant", "balanced accuracy",
    ]  # fmt: skip
    caption = join([name_of(dataset), f": by {results[0].group_by}, with {data.probe_interval} of single draws"])
    return table(caption, head, rows, numeric=(1, 2, *range(6, 11)))


def confusion(found: Confusion, dataset: DataSet) -> Markup:
    """A confusion matrix of a data set."""
    caption = join([name_of(dataset), f": {found.caption}"])
    return matrix(caption, dataset.classes[: len(found.counts)], found.counts)


def matrix(caption: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix whose cells are shaded by their share of the true class."""
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = [element("th", name, scope="row")]
        for count in row:
            share = count / total if total else 0.0
            text = (str(count), element("small", f" {share:.0%}"))
            cells.append(element("td", *text, class_="share", style=f"--share:{share:.3f}"))
        rows.append(element("tr", *cells, element("td", str(total), class_="number")))
    head = [element("th", text, scope="col") for text in ("true \\ predicted", *names)]
    heads = element("thead", element("tr", *head, element("th", "images", scope="col", class_="number")))
    return boxed(caption, element("table", heads, element("tbody", *rows), class_="confusion"))


def facts(told: Mapping[str, str], class_: str | None = None) -> Markup:
    """Names and what they stand for."""
    items = (element("div", element("dt", name), element("dd", text)) for name, text in told.items())
    return element("dl", *items, class_=class_)


def curves(logged: Sequence[Curve]) -> Markup:
    """Where each curve begins and ends, its lowest and its highest value."""
    rows = [
        [
            each.name,
            each.unit,
            *(wording.quantity(v) for v in (each.values[0], each.values[-1], min(each.values), max(each.values))),
        ]
        for each in logged
    ]
    return table("The curves in numbers", ["quantity", "unit", "first", "last", "lowest", "highest"], rows, range(2, 6))


def _estimate(estimate: Estimate) -> Markup:
    if estimate.low is None or estimate.high is None:
        return join([wording.score(estimate.value)])
    interval = element("small", f"{wording.score(estimate.low)}–{wording.score(estimate.high)}")
    return join([wording.score(estimate.value), " ", interval])
