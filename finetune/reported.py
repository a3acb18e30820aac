"""The page of a finished run once more, from its folder: with images, maps, another threshold or class to look for."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_shards.support.documents import CONFIG_FILE, load, parse
from data_shards.support.errors import ConfigError, DataError
from data_shards.support.files import read_json, refuse_existing
from finetune.cases import Cases
from finetune.config import FinetuneConfig
from finetune.report.document import ReportData
from finetune.report.page import write_page
from finetune.report.pictures import MOST_BYTES, Picture, picture_from, picture_of, within
from finetune.report.run.cases import order_of_interest
from finetune.report.run.page import PAGE, write_run_page
from finetune.report.run.results import CROSS_VALIDATION, METRICS, PREDICTIONS, Results, Run, is_run, read_run
from finetune.runs import read

MAPS_TABLE, COMPARISON = "maps.csv", "report.json"
_SAME = 1e-4
"""Probabilities in two tables that differ by less are one."""


@dataclass(frozen=True)
class PageOptions:
    """What a page shows beside what the run itself made of it.

    Attributes:
        images: whether images of the cases stand on it; they are read again from the data of the run.
        explanations: what ``medformer explain`` wrote of the same cases; its maps, which show the images, stand on it.
        threshold: above which probability of the class that is looked for a case counts as it.
        positive: the class that is looked for, of a binary target.
    """

    images: bool = False
    explanations: Path | None = None
    threshold: float | None = None
    positive: str | None = None


def report(folder: Path, out: Path | None = None, options: PageOptions | None = None) -> Path:
    """Write the page of a run; returns where it is.

    Args:
        folder: that ``finetune`` wrote; or ``evaluate`` or ``demo``, whose page is drawn again from ``report.json``.
        out: the file; without it the page of the run is replaced.
        options: what it shows.

    Raises:
        DataError: the folder is none of a run, its data are not where they were, or maps are of other cases.
        ConfigError: the run has no such class or no threshold.
    """
    options = options or PageOptions()
    if out is not None:
        refuse_existing(out, overwrite=False, file=True)
    if (folder / COMPARISON).is_file():
        if options != PageOptions():
            raise ConfigError(f"{folder}: images, maps and thresholds are for a fine-tuning, this is a comparison")
        data = parse(ReportData, read_json(folder / COMPARISON, DataError), str(folder / COMPARISON))
        return write_page(data, out or folder / PAGE)
    if not is_run(folder):
        raise DataError(f"{folder}: no {METRICS} and {PREDICTIONS} of a fine-tuning, no {COMPARISON} of a comparison")
    run = read_run(folder)
    if run.results:
        first = run.results[0]
        if options.positive is not None:
            first = first.looking_for(options.positive)
        if options.threshold is not None:
            first = first.at(options.threshold)
        run = replace(run, results=(first, *run.results[1:]))
    elif options != PageOptions():
        raise DataError(f"{folder}: no predictions were made, so there is nothing to show of cases")
    pictures: dict[str, Picture] = {}
    maps: dict[str, Picture] = {}
    room = MOST_BYTES // (1 + (options.images and options.explanations is not None))
    if options.images:
        pictures = within(_pictures(run, run.results[0]), room)
    if options.explanations is not None:
        maps = within(_maps(options.explanations, run.results[0]), room)
    return write_run_page(run, out or folder / PAGE, pictures=pictures, maps=maps)


def _pictures(run: Run, results: Results) -> Iterator[tuple[str, Picture]]:
    """Images of the cases, the most interesting first, from the data the run was made from."""
    config = load(FinetuneConfig, run.folder / CONFIG_FILE)
    cases = _cases(config, results)
    places = {str(key): place for place, key in enumerate(cases.keys.tolist())}
    for position in order_of_interest(results):
        key = results.keys[position]
        if key not in places:
            raise DataError(f"{config.data}: no case {key!r}; these are not the data that the run was made from")
        if cases.labels is None or not np.allclose(cases.labels[places[key]], results.labels[position]):
            raise DataError(f"{config.data}: {key} has another label than in the run; the data were changed")
        studies = cases.studies_of(places[key])
        first = f"{key}, the first of {len(studies)} images" if len(studies) > 1 else key
        yield key, picture_of(studies[0], first)


def _cases(config: FinetuneConfig, results: Results) -> Cases:
    splits = read(config.data, config)
    split = "train" if results.split == CROSS_VALIDATION else results.split
    if split not in splits:
        raise DataError(f"{config.data}: there is no {split} split any more")
    return splits[split]


def _maps(folder: Path, results: Results) -> Iterator[tuple[str, Picture]]:
    """The first map of each case, if the classifier said there what it says here."""
    path = folder / MAPS_TABLE
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected what medformer explain writes") from None
    places = {key: place for place, key in enumerate(results.keys)}
    columns = {name: place for place, name in enumerate(results.classes)}
    mine: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["key"] in places and row["class"] in columns:
            mine.setdefault(row["key"], row)
    if not mine:
        raise DataError(
            f"{path}: no map of a case of the {results.split} predictions; explain the same data and split, with the "
            "--csv of the fine-tuning"
        )
    for position in order_of_interest(results):
        if (found := mine.get(results.keys[position])) is None:
            continue
        said, here = float(found["value"]), float(results.mean[position, columns[found["class"]]])
        if results.split != CROSS_VALIDATION and abs(said - here) > _SAME * max(1.0, abs(here)):
            here_too = f"{found['class']} {said:g}, in the run {here:g}"
            raise DataError(f"{path}: {found['key']} has {here_too}: another classifier or split")
        told = f"{found['key']}: {found['method']} for {found['class']}; {found['says']}; "
        told += f"from {float(found['lowest']):.3g} to {float(found['highest']):.3g} ({found['unit']})"
        told += f". {found['note']}" * bool(found["note"])
        try:
            content = (folder / found["picture"]).read_bytes()
        except OSError as error:
            raise DataError(f"{folder / found['picture']}: {error.strerror}") from None
        yield results.keys[position], picture_from(content, told)
