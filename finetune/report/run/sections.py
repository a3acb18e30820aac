"""The sections of a page about one run, from what was found down to where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from data_shards.vocabulary import Task
from finetune.report import charts, tables
from finetune.report.document import Curve
from finetune.report.markup import Markup, element, join
from finetune.report.pictures import Picture, scroller
from finetune.report.run import figures, numbers, words
from finetune.report.run.cases import examples, table
from finetune.report.run.results import Results, Run
from finetune.scores.bootstrap import Interval, interval
from finetune.scores.calibration import brier, expected_calibration_error

_MOST_CURVES = 8
_MOST_CLASSES = 12


def result(run: Run, results: Results, pictures: Mapping[str, Picture]) -> Iterator[Markup]:
    """What was found and how sure, the one figure that shows it, and images where they were asked for."""
    yield element("p", words.headline(results), class_="headline")
    yield tables.facts(
        {name: join([value, element("small", ends)]) for name, (value, ends) in words.tiles(results).items()}, "tiles"
    )
    items = [element("li", sentence) for sentence in (*words.findings(results), *words.raw_pixels(run))]
    yield element("div", element("ul", *items, class_="findings"), figure(results), class_="beside")
    if pictures:
        shown = [
            element("figure", scroller(pictures[results.keys[place]]), element("figcaption", told))
            for place, told in examples(results, list(pictures))
        ]
        yield element("div", *shown, class_="samples")


def figure(results: Results) -> Markup:
    """The one figure that shows what was found."""
    if results.binary:
        said = f"Each dot is an image. {words.threshold_rule(results)}"
        return _figure("How probable each image was said to be", figures.dots(results), said)
    if results.task is Task.multilabel:
        rows = [(name, numbers.area(results, truth, said)) for name, truth, said in numbers.columns(results)]
        title = f"AUC of each of {len(rows)} labels with 95 % intervals"
        return _figure(title, figures.bars(rows, x="AUC", title=title, chance=0.5), "The dashed line is guessing.")
    if results.target.classifies:
        shares = [(f"{each.name} ({each.count})", each.recall) for each in numbers.class_shares(results)]
        title = "Of the images of each class, the share that is recognised, with 95 % intervals"
        return _figure(title, figures.bars(shares[:_MOST_CLASSES], x="share recognised", title=title))
    drawn = [
        figures.against_truth(truth_N, said_N, name)
        for name, truth_N, said_N in zip(results.classes, results.labels.T, results.mean.T, strict=True)
    ]
    return _figure("Predicted and true", join(drawn[:4]), "On the dashed line both are equal.")


def scores(run: Run, results: Results) -> Iterator[Markup]:
    """Every score with its interval, beside what a constant answer gives; of classes, what is recognised of each."""
    _, constant = numbers.constant(results)
    rows = []
    for kind in results.target.metrics:
        found = results.scores.metrics[kind.name]
        trivial = "–" if kind.chance is None else f"{kind.chance:g}"
        if kind.name == ("acc" if results.target.classifies else "mae") and results.task is not Task.multilabel:
            trivial = words.measured(constant)
        rows.append([_named(kind.words), *_cells(found, bounded=kind.bounded), trivial])
    head = ["score", "value", "95 % interval", "without looking"]
    caption = f"{words.cases_of(results)}; accuracy takes the likeliest answer, without a chosen threshold"
    yield tables.table(caption, head, rows, numeric=range(1, 4))
    if results.target.classifies:
        yield _class_table(results)
    for other in run.results[1:]:
        rows = [
            [_named(kind.words), *_cells(other.scores.metrics[kind.name], bounded=kind.bounded)]
            for kind in other.target.metrics
        ]
        yield tables.table(f"Further: {words.cases_of(other)}", ["score", "value", "95 % interval"], rows, range(1, 3))


def _named(words_of_metric: str) -> str:
    return words_of_metric.replace("ACC", "accuracy")


def _class_table(results: Results) -> Markup:
    rows = []
    for place, each in enumerate(numbers.class_shares(results)):
        spared = numbers.spared(results, place)
        right = f"{each.recognised} of {each.claimed}" if each.claimed else "none"
        recall = words.percent(each.recall.estimate) if each.recall else "–"
        rows.append(
            [
                each.name,
                str(each.count),
                f"{recall} ({words.ends(each.recall)})",
                "–" if spared is None else f"{words.percent(spared.estimate)} ({words.ends(spared)})",
                right,
            ]
        )
    kind = "label" if results.task is Task.multilabel else "class"
    head = [kind, "images", "sensitivity", "specificity", "right of those named so"]
    caption = f"Each {kind} by itself, with 95 % intervals"
    if results.binary:
        caption += f". {words.threshold_rule(results)}"
    return tables.table(caption, head, rows, numeric=range(1, 5))


def data(run: Run) -> Iterator[Markup]:
    """Splits, subjects, class balance, and warnings."""
    told = run.metrics["data"]
    parts = {f"{name} split": part for name, part in told["splits"].items()} | {"labels used": told["given"]}
    classes = list(dict.fromkeys(name for part in parts.values() for name in part.get("classes", {})))
    head = ["part", "cases", "subjects", *classes]
    rows = []
    for name, part in parts.items():
        total = part["cases"]
        counts = [part.get("classes", {}).get(each) for each in classes]
        cells = ["–" if n is None else f"{n} ({words.percent(n / total)})" for n in counts]
        rows.append([name, str(total), str(part.get("subjects", "each its own")), *cells])
    yield tables.table("Cases of each part", head, rows, numeric=range(1, len(head)))
    ranges = {name: part["numbers"] for name, part in parts.items() if "numbers" in part}
    if ranges:
        rows = [
            [f"{name}, {part}", *(f"{each[key]:.4g}" for key in ("lowest", "mean", "highest"))]
            for part, by in ranges.items()
            for name, each in by.items()
        ]
        yield tables.table("Range of the numbers", ["number", "lowest", "mean", "highest"], rows, numeric=range(1, 4))
    for warning in (*told.get("warnings", ()), run.metrics.get("shortage", ""), *run.metrics.get("notes", ())):
        if warning:
            yield element("p", warning, class_="notice")


def training(run: Run) -> Iterator[Markup]:
    """How the classifier was made, and the curves that were logged."""
    fit, config = run.metrics["fit"], run.config
    facts = {
        "network": _network(run) + ("" if fit["pretrained"] else ", random weights"),
        "trained": f"{config.get('strategy')}, head {config.get('head')}",
        "labels": f"{fit['distinct_labelled_images']} different cases",
        "hyper-parameters": str(fit["selection"]),
        "models averaged": str(fit["members"]),
        "calibration": f"temperature {fit['temperature']:.2f}, from {fit['calibrated_on']} held-out predictions"
        if fit["calibrated_on"]
        else "none",
    }
    yield tables.facts(facts)
    chosen = fit.get("chosen") or {}
    drawn = [
        Curve(name=name, steps=tuple(logged["steps"]), values=tuple(logged["loss"]))
        for name, key in (("training loss", "training"), ("held-out loss", "held_out_curve"))
        if (logged := chosen.get(key)) and logged["steps"] and None not in logged["loss"]
    ]
    if drawn:
        each = (element("figure", element("figcaption", curve.name), charts.curve(curve)) for curve in drawn)
        yield element("div", *each, class_="grid")
        yield tables.curves(drawn)
    losses = {name: loss for name, loss in (chosen.get("held_out_loss") or {}).items() if isinstance(loss, float)}
    if losses:
        rows = [[str(name), f"{loss:.4f}"] for name, loss in sorted(losses.items(), key=lambda pair: pair[1])]
        yield tables.table("Held-out log loss of what was tried; less is better", ["candidate", "loss"], rows, (1,))


def curves(results: Results) -> Iterator[Markup]:
    """ROC and precision-recall curves, with a band where there is one curve, and their areas with intervals."""
    columns = numbers.columns(results)
    if not columns:
        return
    one = len(columns) == 1
    drawn = columns[:_MOST_CURVES]
    places = [results.classes.index(name) for name, _, _ in drawn]
    roc = [(name, numbers.roc(results, truth, said, band=one)) for name, truth, said in drawn]
    precision = [(name, numbers.precision_recall(results, truth, said, band=one)) for name, truth, said in drawn]
    point = None
    if one:
        spared = numbers.spared(results, places[0])
        recall = numbers.class_shares(results)[places[0]].recall
        point = None if spared is None or recall is None else (1 - spared.estimate, recall.estimate)
    left = figures.curves(
        roc, x="1 − specificity", y="sensitivity", title="ROC curve; areas are in the table", point=point
    )
    prevalence = float(columns[0][1].mean()) if one else 0.0
    right = figures.curves(
        precision, x="sensitivity", y="precision", title="Precision and sensitivity; areas are in the table",
        chance=prevalence if one else 0.0,
    )  # fmt: skip
    if not one:
        yield charts.legend([name for name, _, _ in drawn])
    marked = " The diamond is where decisions are made." if point else ""
    band = " The band is a pointwise 95 % interval over subjects." if one and len(roc[0][1].low) else ""
    yield element(
        "div",
        _figure("ROC", left, f"The dashed diagonal is guessing.{marked}{band}"),
        _figure("Precision and recall", right, "The dashed line is how common the class is." if one else ""),
        class_="grid",
    )
    rows = [
        [name, f"{truth.mean():.3f}", *_cells(numbers.area(results, truth, said)),
         *_cells(numbers.precision_area(results, truth, said))]
        for name, truth, said in columns
    ]  # fmt: skip
    head = ["class against the rest", "share of cases", "AUC", "95 % interval", "average precision", "95 % interval"]
    yield tables.table("Areas under the curves", head, rows, numeric=range(1, 6))


def calibration(run: Run, results: Results) -> Iterator[Markup]:
    """Whether probabilities come true."""
    if not results.target.classifies:
        return
    for sentence in words.prevalence(run, results):
        yield element("p", sentence, class_="notice")
    what = "probability of the decision"
    if results.binary:
        what = f"probability of {results.classes[results.positive]}"
    elif results.task is Task.multilabel:
        what = "probability of a label"
    said = "Points on the dashed line come true as often as said; bars are 95 % intervals, wide where cases are few."
    rows = [
        [name, *_cells(_interval(results, score))]
        for name, score in (("Brier score", brier), ("expected calibration error", expected_calibration_error))
    ]
    note = "0 is best. A calibration error is above 0 even of perfect probabilities, by chance alone"
    beside = tables.table(note, ["error", "value", "95 % interval"], rows, numeric=range(1, 3))
    drawn = _figure("Said and come true", figures.calibration(numbers.calibration(results), what), said)
    yield element("div", drawn, beside, class_="beside")


def confusion(results: Results) -> Iterator[Markup]:
    """Which class the images of each class were taken for."""
    if not results.target.classifies or results.task is Task.multilabel:
        return
    caption = "Rows are true classes, columns decisions; shading is the share of the row"
    if results.binary:
        caption += f". Predicted means decided at the threshold. {words.threshold_rule(results)}"
    yield tables.matrix(caption, results.classes, numbers.confusion(results).tolist())


def cases(results: Results, pictures: Mapping[str, Picture], maps: Mapping[str, Picture]) -> Iterator[Markup]:
    """Every case with what was said of it."""
    yield table(results, pictures, maps)


def provenance(run: Run, threshold: str) -> Iterator[Markup]:
    """Where data, labels, network and numbers come from, under which licence, and how to repeat it."""
    metrics, fit = run.metrics, run.metrics["fit"]
    facts: dict[str, Any] = {
        "data": metrics["dataset"],
        "licence of the data": metrics.get("licence") or "not stated",
        **{f"data, {name}": digest for name, digest in (metrics.get("source") or {}).items()},
        "labels used (sha256 of pixels and labels)": fit["given_sha256"],
        "index file (sha256)": fit["index_sha256"] or "none: all labels of the train split",
        "network": _network(run),
        "settings (sha256)": metrics["config_sha256"],
        "seed": fit["seed"],
        "code": metrics.get("code_version", "–"),
        "threshold": threshold,
        "to repeat": "medformer finetune --config config.yaml --out NEW",
    }
    rows = [[name, element("code", str(value))] for name, value in facts.items() if value != ""]
    yield tables.table("What this page was made from", ["what", "value"], rows, numeric=())


def _network(run: Run) -> str:
    """Where the backbone came from, without the folders of this machine: a page is passed on."""
    name, at, file = str(run.metrics["fit"]["backbone"]).partition("@")
    return f"{name.rpartition('/')[2]}{at}{file.rpartition('/')[2]}"


def _interval(results: Results, score: Any) -> Interval:
    labels = results.labels
    return interval(score, labels, results.mean, results.task, seed=results.seed, subjects=results.subjects)


def _cells(found: Interval, *, bounded: bool = True) -> list[str]:
    digits = "{:.3f}".format if bounded else words.measured
    if math.isnan(found.estimate):
        return ["undefined", "–"]
    known = not (math.isnan(found.low) or math.isnan(found.high))
    return [digits(found.estimate), f"{digits(found.low)} to {digits(found.high)}" if known else "none"]


def _figure(title: str, drawing: Markup, note: str = "") -> Markup:
    below = [element("p", note, class_="note")] if note else []
    return element("figure", element("figcaption", element("b", title)), drawing, *below)
