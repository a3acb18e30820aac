"""The page of one fine-tuning: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from data_shards.support.files import write_atomic
from finetune.origin import own_images
from finetune.report import shell, wording
from finetune.report.markup import Markup, element
from finetune.report.pictures import Picture
from finetune.report.run import sections, words
from finetune.report.run.results import Run

PAGE = "report.html"

NO_IMAGES = (
    "No image and no name of a person is in this file. Whether images may be shown is yours to decide: "
    "medformer report FOLDER --images."
)
WITH_IMAGES = "This file holds images of cases. Treat it as you treat the images themselves."


def write_run_page(
    run: Run, path: Path, *, pictures: Mapping[str, Picture] | None = None, maps: Mapping[str, Picture] | None = None
) -> Path:
    """Write the page to ``path``, whole or not at all; returns ``path``.

    Args:
        run: what is reported; the first of its results is what the page is about.
        path: the file.
        pictures: images of cases by key; none unless asked for, since a page is passed on more easily than images are.
        maps: of what the classifier looked at, likewise.

    Raises:
        MedformerError: the file cannot be written.
    """
    write_atomic(path, render_run(run, pictures or {}, maps or {}))
    return path


def render_run(run: Run, pictures: Mapping[str, Picture], maps: Mapping[str, Picture]) -> str:
    """The page as text."""
    found = list(_sections(run, pictures, maps))
    title = f"{run.metrics['dataset']}: a fine-tuned model and how good it is"
    parts = [shell.section(name, *children) for name, children in found]
    header = element("header", element("h1", title), *_notices(run, bool(pictures or maps)))
    navigation = shell.navigation([name for name, _ in found])
    footer = element("footer", element("p", f"Made by Medformer. {wording.NOT_FOR_CLINICAL_USE}"))
    body = element("body", header, navigation, element("main", *parts), footer)
    script = shell.resource("run/page.js")
    return shell.document(title, body, script=script, images=bool(pictures or maps))


def _notices(run: Run, images: bool) -> Iterator[Markup]:
    yield element("p", wording.NOT_FOR_CLINICAL_USE, class_="notice")
    if not run.metrics.get("official", True):
        note = str(run.metrics.get("note"))
        said = [note] if own_images(note) else [element("b", wording.UNOFFICIAL), f" data: {note}"]
        yield element("p", *said, class_="notice")
    yield element("p", WITH_IMAGES if images else NO_IMAGES, class_="notice" if images else "quiet")


def _sections(
    run: Run, pictures: Mapping[str, Picture], maps: Mapping[str, Picture]
) -> Iterator[tuple[str, list[Markup]]]:
    """Titles and contents; what a run does not have is left out."""
    if not run.results:
        said = "No estimate was made: nothing is known of how good this model is."
        yield "Result", [element("p", said, class_="headline")]
        yield "Data", list(sections.data(run))
        yield "Training", list(sections.training(run))
        yield "Provenance", list(sections.provenance(run, "none"))
        return
    results = run.results[0]
    threshold = words.threshold_rule(results) if results.binary else "none"
    parts = {
        "Result": sections.result(run, results, pictures),
        "Scores": sections.scores(run, results),
        "Data": sections.data(run),
        "Training": sections.training(run),
        "Curves": sections.curves(results),
        "Calibration": sections.calibration(run, results),
        "Confusion": sections.confusion(results),
        "Cases": sections.cases(results, pictures, maps),
        "Provenance": sections.provenance(run, threshold),
    }
    for title, part in parts.items():
        content = list(part)
        if content:
            yield title, content
