"""A whole explanation: from a document to a folder of maps with a table and a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.documents import digest
from data_shards.support.errors import ConfigError, DataError, nearest
from data_shards.support.files import finite, new_folder, refuse_existing, write_atomic, write_json
from finetune.cases import Cases
from finetune.classifier.predictor import Predictor
from finetune.explain.asking import CaseMaps, check_method, maps_of, places_of
from finetune.explain.base import CaseMethod, CasesMethod, Drawn
from finetune.explain.document import ExplainConfig
from finetune.explain.files import write_map
from finetune.explain.methods import create_method
from finetune.explain.page import MOST_BYTES, render
from finetune.explain.pictures import picture
from finetune.explain.sanity import Sanity, check_sanity
from finetune.explain.strength import FAINT, GUESSES, notes_on, scale_of
from finetune.predictions import new_cases, open_classifier
from finetune.progress import progress
from finetune.tables import as_csv
from finetune.targets import Target

MAPS_TABLE, MAPS_DOCUMENT, PAGE = "maps.csv", "maps.json", "maps.html"


@dataclass(frozen=True)
class ExplainResult:
    """What an explanation gave.

    Attributes:
        cases: that were explained.
        rows: of the table of maps; empty where the method draws the classifier as a whole.
        sanity: the randomisation check, where it was asked for.
        drawn: what a method says of the classifier as a whole.
        fitted_on: how many of the cases have images that the classifier was fitted on.
        doubts: why it is not shown that the classifier learnt anything, a sentence each.
    """

    cases: Cases
    rows: list[dict[str, Any]]
    sanity: Sanity | None = None
    drawn: Drawn | None = None
    fitted_on: int = 0
    doubts: tuple[str, ...] = ()


def explain(config: ExplainConfig, classifier: Path, out: Path, *, overwrite: bool = False) -> ExplainResult:
    """Explain what a saved classifier says of images.

    Args:
        config: what to do.
        classifier: ``config.classifier`` as a local folder.
        out: the folder that appears: ``maps.csv`` with a row per map, ``maps.json`` with these and how they were made,
            ``maps.html`` to look through them, a file and a picture of each map; of a method that draws the classifier
            as a whole, its text and its drawing in place of maps. ``sanity.json`` where the check was asked for.
        overwrite: replace it.

    Raises:
        MedformerError: the classifier, the images or the folder cannot be used; nothing is left behind.
    """
    refuse_existing(out, overwrite=overwrite)
    method = create_method(config.method, config.options)
    model = open_classifier(classifier, config.device)
    predictor = model.predictor_
    for member in predictor.members:
        method.check(member)
    if config.sanity and not isinstance(method, CaseMethod):
        raise ConfigError(f"method {config.method} makes no maps, so there are none to compare; leave sanity out")
    places_of(predictor.target, config.classes, np.zeros(len(predictor.target.classes)))
    cases = _chosen(new_cases(config, model), config.cases)
    probabilities = predictor.predict_proba(cases)
    fitted_on, doubts = predictor.seen.among(cases), doubts_of(model.estimate_)
    with new_folder(out, overwrite=overwrite) as partial:
        if isinstance(method, CasesMethod):
            drawn = method.drawn(predictor, predictor.shown(cases), probabilities, config.seed)
            method.write(drawn, partial)
            _document(config, partial, method.unit, [], {"figures": drawn.figures})
            return ExplainResult(cases, [], drawn=drawn, fitted_on=fitted_on, doubts=doubts)
        assert isinstance(method, CaseMethod)
        rows, pictures = _write_maps(config, method, predictor, cases, probabilities, partial)
        sanity = None
        if config.sanity:
            some = cases[np.arange(min(config.sanity_cases, len(cases)))]
            places = [places_of(predictor.target, config.classes, each)[0] for each in probabilities[: len(some)]]
            sanity = check_sanity(predictor, method, some, places, seed=config.seed)
            write_json(partial / "sanity.json", finite(sanity.as_json()))
        _document(config, partial, method.unit, rows, {} if sanity is None else {"sanity": finite(sanity.as_json())})
        result = ExplainResult(cases, rows, sanity, fitted_on=fitted_on, doubts=doubts)
        facts = {"method": method.name, "cases": str(len(cases)), "maps": str(len(rows)), "a map is": method.unit}
        title = "What the classifier looked at"
        write_atomic(partial / PAGE, render(title, facts, notes_of(result), rows, pictures))
    return result


def doubts_of(estimate: Mapping[str, Any]) -> tuple[str, ...]:
    """Why an estimate does not show that a classifier learnt anything, a sentence each; empty where it does.

    Args:
        estimate: that was kept with the classifier, by split.
    """
    if not estimate:
        return ("No estimate was kept with it: it is not shown that anything was learnt.",)
    scores = [(kept.get("scores") or {}) for kept in estimate.values() if isinstance(kept, dict)]
    return tuple(dict.fromkeys(str(each["learnt"]) for each in scores if each.get("learnt")))


def notes_of(result: ExplainResult) -> list[str]:
    """What has to be known of an explanation, a sentence each."""
    notes = [str(warning) for warning in result.cases.warnings]
    notes += [f"When the classifier was made: {doubt}" for doubt in result.doubts]
    for kind, meaning in ((GUESSES, "there is next to nothing to explain"), (FAINT, "it is painted as pale as it is")):
        if count := sum(kind in row["note"] for row in result.rows):
            notes.append(f"{count} of {len(result.rows)} maps: {kind}; {meaning}.")
    if result.fitted_on:
        notes.append(
            f"The classifier was fitted on images of {result.fitted_on} of these {len(result.cases)} cases: their maps "
            "may show what it knows by heart."
        )
    flat = sum(row["lowest"] == row["highest"] for row in result.rows)
    if flat:
        notes.append(f"{flat} of {len(result.rows)} maps are the same everywhere: they point at nothing.")
    if result.sanity is not None:
        notes.append(result.sanity.told[0].upper() + result.sanity.told[1:] + ".")
    return notes


def _chosen(cases: Cases, keys: tuple[str, ...]) -> Cases:
    if not keys:
        return cases
    known = [str(key) for key in cases.keys.tolist()]
    for key in keys:
        if key not in known:
            raise DataError(f"{cases.name}: no case {key!r}{nearest(key, known[:1000])}")
    return cases[np.array([known.index(key) for key in dict.fromkeys(keys)])]


def _write_maps(
    config: ExplainConfig,
    method: CaseMethod,
    predictor: Predictor,
    cases: Cases,
    probabilities: np.ndarray,
    folder: Path,
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """A file and a picture of each map; the rows of the table, and the pictures that the page has room for."""
    rows: list[dict[str, Any]] = []
    pictures: list[bytes] = []
    room = MOST_BYTES
    check_method(predictor, method)
    for said in _all_maps(config, method, predictor, cases, probabilities):
        for each in said.maps:
            stem, study = f"{len(rows) + 1:06d}", said.studies[each.study]
            amount = method.amount(each.values) if predictor.target.classifies else None
            scale = scale_of(each.on_voxels, amount)
            content = picture(each, study, scale)
            room -= len(content)
            if room >= 0:
                pictures.append(content)
            (folder / f"{stem}.png").write_bytes(content)
            value = float(probabilities[said.case, said.place])
            rows.append(
                {
                    "key": str(cases.keys[said.case]),
                    "study": each.study + 1,
                    "image": each.image,
                    "modality": study.images[each.image].modality.name,
                    "class": predictor.target.classes[said.place],
                    "says": _says(predictor.target, value, said.evidence),
                    "value": value,
                    "evidence": said.evidence,
                    "method": method.name,
                    "lowest": float(each.values.min()),
                    "highest": float(each.values.max()),
                    "unit": method.unit,
                    "scale": scale,
                    "note": notes_on(predictor.target, said.evidence, amount),
                    "file": write_map(folder, stem, each, study),
                    "picture": f"{stem}.png",
                }
            )
    write_atomic(folder / MAPS_TABLE, as_csv(rows))
    return rows, pictures


def _all_maps(
    config: ExplainConfig, method: CaseMethod, predictor: Predictor, cases: Cases, probabilities: np.ndarray
) -> Iterator[CaseMaps]:
    view = predictor.shown(cases)
    with progress(len(cases), "cases", "explaining") as told:
        for case in range(len(cases)):
            places = places_of(predictor.target, config.classes, probabilities[case])
            yield from maps_of(predictor, method, cases, case, places, view)
            told.advance(1)


def _says(target: Target, value: float, evidence: float) -> str:
    return f"probability {value:.3f}, log odds {evidence:.3g}" if target.classifies else f"predicted {value:.6g}"


def _document(
    config: ExplainConfig, folder: Path, unit: str, rows: list[dict[str, Any]], further: dict[str, Any]
) -> None:
    """How the maps were made, without the places where data lie."""
    kept = {
        "config_sha256": digest(config),
        "method": config.method,
        "options": config.options,
        "classes": list(config.classes),
        "seed": config.seed,
        "unit": unit,
        "maps": rows,
        **further,
    }
    write_json(folder / MAPS_DOCUMENT, finite(kept))
