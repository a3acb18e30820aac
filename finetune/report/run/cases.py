"""The table of cases: sorted and filtered by the script of the page, readable without it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from data_shards.vocabulary import Task
from finetune.report.markup import Markup, element, join
from finetune.report.pictures import Picture, frame
from finetune.report.run import words
from finetune.report.run.results import Results
from finetune.report.run.words import number
from finetune.report.tables import boxed

MOST_ROWS = 2000
PRINTED = 40
"""So many rows are printed; see ``style.css``."""

Cell = tuple[str, float | str]
"""What stands in a cell, and what it is sorted by."""


def order_of_interest(results: Results) -> list[int]:
    """Positions of the cases: those that are decided wrongly, the surest first; then the least certain of the others.

    Of numbers, the largest error first.
    """
    if not results.target.classifies:
        return np.argsort(-_errors(results), kind="stable").tolist()
    return np.lexsort((np.where(results.right, -1, 1) * results.uncertainty, results.right)).tolist()


def table(results: Results, pictures: Mapping[str, Picture], maps: Mapping[str, Picture]) -> Markup:
    """Controls, the table, and what is not in it.

    Args:
        results: what was said of the cases.
        pictures: of cases, by key.
        maps: of what the classifier looked at, by key.
    """
    order = order_of_interest(results)
    shown = order[:MOST_ROWS]
    head, columns = _columns(results)
    carried_NC = results.target.carried(results.labels)
    rows = []
    for place in shown:
        key = results.keys[place]
        cells: list[Markup] = []
        if pictures:
            cells.append(_look(pictures.get(key), key, "image"))
        if maps:
            cells.append(_look(maps.get(key), key, "map"))
        cells.append(element("th", key, scope="row", data_v=key))
        cells += [_cell(text, value) for text, value in (column[place] for column in columns)]
        state = ("right" if results.right[place] else "wrong") if results.target.classifies else None
        classes = " ".join(map(str, np.flatnonzero(carried_NC[place]))) if results.target.classifies else None
        rows.append(element("tr", *cells, data_state=state, data_class=classes))
    leading = ["image"] * bool(pictures) + ["map"] * bool(maps)
    heads = [element("th", name, scope="col") for name in leading]
    heads += [
        element("th", element("button", name, type="button"), scope="col", aria_sort="none") for name in ["case", *head]
    ]
    whole = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_="cases",
    )
    box = boxed(_caption(results, len(shown)), whole)
    return join([_controls(results), box, _viewer() if pictures or maps else ""])


def _caption(results: Results, shown: int) -> str:
    what = (
        "the surest wrong ones first, then the least certain"
        if results.target.classifies
        else "the largest error first"
    )
    left = f" {len(results) - shown} more are in predictions.csv." if shown < len(results) else ""
    why = f" {words.decided_how(results)}" if results.binary else ""
    return f"{shown} cases, {what}; a click on a heading sorts.{left}{why}"


def _controls(results: Results) -> Markup:
    search = element("label", "Case ", element("input", type="search", id="case-search", size="10"))
    parts: list[Markup] = [search]
    if results.target.classifies:
        states = [("", "all"), ("wrong", "decided wrongly"), ("right", "decided rightly")]
        options = [element("option", text, value=value) for value, text in states]
        parts.insert(0, element("label", "Show ", element("select", *options, id="case-state")))
        classes = [element("option", "all", value="")]
        classes += [element("option", name, value=str(place)) for place, name in enumerate(results.classes)]
        parts.insert(1, element("label", "True class ", element("select", *classes, id="case-class")))
    count = element("output", f"{min(len(results), MOST_ROWS)} cases", id="case-count", aria_live="polite")
    return element("form", *parts, count, class_="controls", role="search", aria_label="Filter the cases")


def _viewer() -> Markup:
    buttons = [element("button", name, type="button", class_=name) for name in ("previous", "next", "close")]
    slider = element("input", type="range", class_="slice", aria_label="slice")
    return element(
        "dialog",
        element("div", *buttons, class_="buttons"),
        element("div", class_="shown"),
        slider,
        element("p", class_="told"),
        id="viewer",
        aria_label="One case",
    )


def _look(picture: Picture | None, key: str, what: str) -> Markup:
    if picture is None:
        return element("td", "–")
    button = element(
        "button", frame(picture, later=True), type="button", class_="look", aria_label=f"look at the {what} of {key}"
    )
    return element("td", button)


def _cell(text: str, value: float | str) -> Markup:
    if isinstance(value, str):
        return element("td", text, data_v=value)
    sorted_by = f"{value:.6g}" if math.isfinite(value) else "1e308" * math.isinf(value)
    return element("td", text, class_="number", data_v=sorted_by)


def _columns(results: Results) -> tuple[list[str], list[list[Cell]]]:
    if not results.target.classifies:
        return _number_columns(results)
    true = [_names(results, label_L) for label_L in results.labels]
    said = [_names(results, label_L) for label_L in results.decided]
    head = ["true", "decided", "right"]
    columns: list[list[Cell]] = [
        [(name, name) for name in true],
        [(name, name) for name in said],
        [("yes", 1.0) if right else ("no", 0.0) for right in results.right.tolist()],
    ]
    if results.binary:
        head.append(f"p({results.classes[results.positive]})")
        columns.append(_numbers(results.mean[:, results.positive]))
    elif results.task is Task.multilabel:
        head += [f"p({name})" for name in results.classes]
        columns += [_numbers(values_N) for values_N in results.mean.T]
    else:
        rows = np.arange(len(results))
        head += ["p(decided)", "p(true)"]
        columns.append(_numbers(results.mean[rows, results.decided[:, 0]]))
        columns.append(_numbers(results.mean[rows, results.labels[:, 0]]))
    head.append("uncertainty")
    columns.append(_numbers(results.uncertainty))
    if results.sets:
        head.append("cannot be excluded")
        columns.append([(each or "none fits", each) for each in results.sets])
    return head, columns


def _number_columns(results: Results) -> tuple[list[str], list[list[Cell]]]:
    head: list[str] = []
    columns: list[list[Cell]] = []
    several = len(results.classes) > 1
    for place, name in enumerate(results.classes):
        suffix = f" {name}" * several
        truth_N, said_N = results.labels[:, place], results.mean[:, place]
        head += [f"true{suffix}", f"predicted{suffix}", f"off by{suffix}"]
        columns += [_measures(truth_N), _measures(said_N), _measures(said_N - truth_N)]
        if results.ends is not None:
            head.append(f"interval{suffix}")
            columns.append([_interval(low, high) for low, high in results.ends[:, place].tolist()])
    return head, columns


def _interval(low: float, high: float) -> Cell:
    """From too few cases to calibrate on, an interval holds everything."""
    if math.isinf(high - low):
        return "anything", math.inf
    return f"{number(low, bounded=False)} to {number(high, bounded=False)}".replace("-", "−"), high - low


def _numbers(values_N: np.ndarray) -> list[Cell]:
    return [("–" if math.isnan(value) else f"{value:.3f}", value) for value in values_N.tolist()]


def _measures(values_N: np.ndarray) -> list[Cell]:
    return [(f"{value:.4g}".replace("-", "−"), value) for value in values_N.tolist()]


def _names(results: Results, label_L: np.ndarray) -> str:
    if results.task is Task.multilabel:
        return ", ".join(name for name, has in zip(results.classes, label_L, strict=True) if has) or "none"
    return results.classes[int(label_L[0])]


def _errors(results: Results) -> np.ndarray:
    """Mean over the numbers of the error as a share of their spread, ``(N,)``."""
    spread_L = results.labels.std(axis=0)
    error_N: np.ndarray = (np.abs(results.mean - results.labels) / np.where(spread_L > 0, spread_L, 1)).mean(axis=1)
    return error_N


def examples(results: Results, known: Sequence[str], most: int = 10) -> list[tuple[int, str]]:
    """Cases that show what the model does, and what each is, in words: of each class a right and a wrong one.

    Args:
        results: what was said of the cases.
        known: keys of the cases that have pictures.
        most: how many.
    """
    has = set(known)
    places = [place for place in range(len(results)) if results.keys[place] in has]
    if not results.target.classifies or results.task is Task.multilabel:
        order = sorted(places, key=lambda place: float(results.labels[place].sum()))
        picked = [order[index] for index in np.unique(np.linspace(0, len(order) - 1, min(4, len(order))).astype(int))]
        return [(place, _told(results, place)) for place in picked]
    found = []
    for index in range(len(results.classes)):
        for right in (True, False):
            mine = [p for p in places if results.labels[p, 0] == index and results.right[p] == right]
            if mine:
                surest = min(mine, key=lambda p: float(results.uncertainty[p]))
                found.append((surest, _told(results, surest)))
    return found[:most]


def _told(results: Results, place: int) -> str:
    if not results.target.classifies:
        pairs = zip(results.classes, results.labels[place].tolist(), results.mean[place].tolist(), strict=True)
        return "; ".join(f"{n}: {number(t, bounded=False)}, predicted {number(s, bounded=False)}" for n, t, s in pairs)
    true, said = (_names(results, each[place]) for each in (results.labels, results.decided))
    return f"{true}, recognised" if results.right[place] else f"{true}, taken for {said}"
