"""The result page: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_shards.support.files import write_atomic
from finetune.report import charts, shell, tables, wording
from finetune.report.document import Curve, DataSet, Pretraining, ReportData
from finetune.report.markup import Markup, element, join
from finetune.report.pictures import scroller


def write_page(data: ReportData, path: Path) -> Path:
    """Write the page to ``path``, whole or not at all; returns ``path``.

    Raises:
        MedformerError: the file cannot be written.
    """
    write_atomic(path, render_page(data))
    return path


def render_page(data: ReportData) -> str:
    """The page as text."""
    found = list(_sections(data))
    navigation = shell.navigation([title for title, _ in found])
    parts = [shell.section(title, *children) for title, children in found]
    body = element("body", _header(data), navigation, element("main", *parts), _footer())
    return shell.document(data.title, body, images=bool(data.samples))


def _header(data: ReportData) -> Markup:
    unofficial = [dataset for dataset in data.datasets if not dataset.official]
    facts = [("made", data.created), ("seed", str(data.seed)), ("code", data.code_version)]
    items = [element("li", f"{name} ", element("b", value)) for name, value in facts]
    parts: list[str] = [element("h1", data.title), element("ul", *items, class_="facts")]
    parts.append(element("p", wording.NOT_FOR_CLINICAL_USE, class_="notice"))
    parts += [element("p", note, class_="notice") for note in data.notes]
    parts += [element("p", tables.name_of(each), f" {each.note}", class_="notice") for each in unofficial]
    return element("header", *parts)


def _sections(data: ReportData) -> Iterator[tuple[str, list[Markup]]]:
    """Titles and contents; what there is nothing of is left out."""
    note = "Frozen features; raw pixels and the untrained network are the rows that pretraining has to beat."
    parts: dict[str, Iterator[Markup]] = {"What came out": _found(data)}
    if data.few_label:
        parts["Few labels"] = _few_label(data)
    if data.fits:
        parts["Batches that fits chose"] = _fits(data)
    if data.probes:
        parts["Probes"] = iter([element("p", note), tables.probes(data)])
    if data.groups:
        parts["Groups"] = _groups(data)
    if data.confusions:
        parts["Confusion"] = _confusions(data)
    if data.embeddings:
        parts["Embeddings"] = _embeddings(data)
    if data.pretraining:
        parts["Pretraining"] = _pretraining(data.pretraining)
    parts["Data"] = iter([tables.datasets(data)])
    parts["Provenance"] = _provenance(data)
    for title, part in parts.items():
        content = list(part)
        if content:
            yield title, content


def _found(data: ReportData) -> Iterator[Markup]:
    """What the comparison shows, the figure of the first data set, and images of each."""
    found = wording.findings(data)
    if not found:
        return
    items = [
        element("li", tables.name_of(data.dataset(name)), element("ul", *(element("li", text) for text in sentences)))
        for name, sentences in found.items()
    ]
    told = element("ul", *items, class_="findings")
    first = _first_drawn(data)
    figure = None if first is None else _few_label_figure(data, first)
    yield told if figure is None else element("div", told, figure, class_="beside")
    if figure is not None:
        yield charts.legend(list(data.arms))
        yield element("p", wording.basis(data), class_="quiet")
    if data.samples:
        shown = [
            element("figure", scroller(each.picture), element("figcaption", tables.name_of(data.dataset(each.dataset)),
                    f" {each.told}"))
            for each in data.samples
        ]  # fmt: skip
        yield element("div", *shown, class_="samples")


def _groups(data: ReportData) -> Iterator[Markup]:
    yield element(
        "p", "Test cases of each group alone. Small groups have wide intervals, and of several some differ by chance."
    )
    for dataset in data.datasets:
        mine = [row for row in data.groups if row.dataset == dataset.name]
        for column in dict.fromkeys(row.group_by for row in mine):
            results = [row for row in mine if row.group_by == column]
            yield tables.groups(data, results, dataset)
            for group, lacking in {row.group: row.lacking for row in results if row.lacking}.items():
                yield element("p", f"{column} {group}: {lacking}; its AUC is undefined.", class_="quiet")


def _confusions(data: ReportData) -> Iterator[Markup]:
    matrices = (tables.confusion(each, data.dataset(each.dataset)) for each in data.confusions)
    yield element("p", "Test images; shading is the share of each true class.")
    yield element("div", *matrices, class_="grid-wide")


def _first_drawn(data: ReportData) -> DataSet | None:
    """The data set whose chart stands above all others."""
    return next((dataset for dataset in data.datasets if _few_label_figure(data, dataset) is not None), None)


def _few_label_figure(data: ReportData, dataset: DataSet) -> Markup | None:
    """The chart of one data set; None where its AUC is nowhere defined."""
    results = [result for result in data.few_label if result.dataset == dataset.name]
    if all(value is None for result in results for value in result.auc):
        return None
    caption = element("figcaption", tables.name_of(dataset), f" {dataset.title}")
    return element("figure", caption, charts.few_label(results, list(data.arms), _plain_name(data, dataset.name)))


def _few_label(data: ReportData) -> Iterator[Markup]:
    first = _first_drawn(data)
    if any(data.arms.values()):
        yield tables.facts(data.arms)
    yield charts.legend(list(data.arms))
    yield element("p", "Large markers are means over seeds, pale ones single seeds, moved sideways to be told apart.")
    for dataset in data.datasets:
        results = [result for result in data.few_label if result.dataset == dataset.name]
        if not results:
            continue
        scores = tables.few_label(data, results, dataset)
        figure = _few_label_figure(data, dataset)
        rows = [row for row in data.differences if row.dataset == dataset.name]
        if figure is None or dataset is first:
            yield from [tables.differences(data, rows, dataset)] * bool(rows)
            yield scores
        elif rows:
            yield element("div", figure, tables.differences(data, rows, dataset), class_="beside")
            yield scores
        else:
            yield element("div", figure, scores, class_="beside")


def _fits(data: ReportData) -> Iterator[Markup]:
    yield element("p", "By epoch: how large batches were, and how many of their cases layers learned from.")
    for fit in data.fits:
        seen = f" {fit.caption}: {fit.seen} different labelled cases of {fit.given} given were drawn in training"
        yield element("h3", tables.name_of(data.dataset(fit.dataset)), seen)
        yield from _curves(fit.curves)


def _embeddings(data: ReportData) -> Iterator[Markup]:
    yield element(
        "p", "Principal components of the embeddings: a linear view, without tuning. Colour and shape: label."
    )
    for each in data.embeddings:
        dataset = data.dataset(each.dataset)
        caption = element("figcaption", tables.name_of(dataset), f" {each.caption}")
        drawing = charts.plane(each, _plain_name(data, dataset.name))
        used = [name for label, name in enumerate(dataset.classes) if label <= max(each.labels)]
        rows = [[name, str(each.labels.count(label))] for label, name in enumerate(used)]
        counts = tables.table(
            join([tables.name_of(dataset), ": images shown"]), ["class", "images"], rows, numeric=(1,)
        )
        beside = element("div", charts.legend(used), counts)
        yield element("div", element("figure", caption, drawing), beside, class_="beside")


def _pretraining(run: Pretraining) -> Iterator[Markup]:
    if run.facts:
        yield tables.facts(run.facts)
    yield from _curves(run.curves)


def _curves(curves: Sequence[Curve]) -> Iterator[Markup]:
    if curves:
        figures = (element("figure", element("figcaption", each.name), charts.curve(each)) for each in curves)
        yield element("div", *figures, class_="grid")
        yield tables.curves(curves)


def _provenance(data: ReportData) -> Iterator[Markup]:
    facts = {"configuration (sha256)": data.config_sha256, "code": data.code_version, "seed": str(data.seed)}
    rows = [[name, element("code", value)] for name, value in {**facts, **data.hashes}.items()]
    if data.command:
        rows.append(["to repeat", element("code", data.command)])
    yield tables.table("What this page was made from", ["what", "value"], rows, numeric=())
    draws: dict[tuple[str, int, int, str, str], list[str]] = {}
    for result in data.few_label:
        for place, seed in enumerate(result.seeds):
            images, index = _at(result.distinct_labelled, place), _at(result.index_sha256, place)[:16]
            draws.setdefault((result.dataset, result.budget, seed, images, index), []).append(result.arm)
    rows = [
        [tables.name_of(data.dataset(name)), str(budget), str(seed), images, element("code", index), "; ".join(arms)]
        for (name, budget, seed, images, index), arms in draws.items()
    ]
    if rows:
        head = ["data set", "labels", "seed", "distinct labelled images", "index file (sha256, first 16)", "seen by"]
        caption = "Which labelled images each arm saw"
        yield element("details", element("summary", caption), tables.table(caption, head, rows, numeric=range(1, 4)))


def _footer() -> Markup:
    return element("footer", element("p", f"Made by Medformer. {wording.NOT_FOR_CLINICAL_USE}"))


def _plain_name(data: ReportData, name: str) -> str:
    dataset = data.dataset(name)
    return name if dataset.official else f"{name} ({wording.mark(dataset)})"


def _at(values: Sequence[object], place: int) -> str:
    return str(values[place]) if place < len(values) else "–"
