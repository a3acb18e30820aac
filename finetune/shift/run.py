"""A whole measurement of robustness: from a document to a folder with tables and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.support.documents import digest, write_resolved
from data_shards.support.errors import DataError
from data_shards.support.files import finite, new_folder, refuse_existing, write_atomic, write_json
from finetune.cases import Cases
from finetune.origin import remark
from finetune.predictions import new_cases, open_classifier
from finetune.shift.corruptions import CORRUPTIONS
from finetune.shift.document import RobustnessConfig
from finetune.shift.page import render
from finetune.shift.robustness import Robustness, measure
from finetune.tables import as_csv

TABLE, DOCUMENT, PAGE = "robustness.csv", "robustness.json", "robustness.html"


@dataclass(frozen=True)
class RobustnessResult:
    """What a measurement gave.

    Attributes:
        cases: that were scored.
        found: their scores.
        fitted_on: how many of the cases have images that the classifier was fitted on.
    """

    cases: Cases
    found: Robustness
    fitted_on: int

    @property
    def notes(self) -> list[str]:
        """What has to be known of it, a sentence each."""
        notes = [f"{self.cases.name}: {warning}" for warning in self.cases.warnings]
        if not self.cases.official:
            said = remark(self.cases.note)
            notes.append(f"{said[0].upper()}{said[1:]}.")
        if self.fitted_on:
            notes.append(
                f"The classifier was fitted on images of {self.fitted_on} of these {len(self.cases)} cases: their "
                "scores do not show how good it is."
            )
        return notes


def robustness(config: RobustnessConfig, classifier: Path, out: Path, *, overwrite: bool = False) -> RobustnessResult:
    """Score a saved classifier on images as they are and as acquisition changes them.

    Args:
        config: what to do.
        classifier: ``config.classifier`` as a local folder.
        out: the folder that appears: ``robustness.csv`` with a row for each corruption and severity,
            ``robustness.json`` with these and their means, ``robustness.html`` to read, ``config.yaml``.
        overwrite: replace it.

    Raises:
        MedformerError: the classifier, the images or the folder cannot be used; nothing is left behind.
    """
    refuse_existing(out, overwrite=overwrite)
    corruptions = [CORRUPTIONS.named(name)() for name in config.corruptions]
    model = open_classifier(classifier, config.device)
    cases = new_cases(config, model)
    if cases.labels is None:
        raise DataError(f"{config.data}: robustness is measured on cases that all have a label; these do not")
    found = measure(
        model.predictor_, cases, corruptions, config.severities, seed=config.seed, replicates=config.replicates
    )
    result = RobustnessResult(cases, found, model.predictor_.seen.among(cases))
    with new_folder(out, overwrite=overwrite) as partial:
        write_atomic(partial / TABLE, as_csv(finite(found.table())))
        write_json(partial / DOCUMENT, finite(_document(config, result)))
        write_atomic(partial / PAGE, render(found, corruptions, cases.name, result.notes))
        write_resolved(config, partial)
    return result


def _document(config: RobustnessConfig, result: RobustnessResult) -> dict[str, Any]:
    cases = result.cases
    return {
        "config_sha256": digest(config),
        "dataset": cases.name,
        "official": cases.official,
        "note": cases.note,
        "source": dict(cases.source),
        "licence": cases.licence,
        "content_sha256": cases.content_sha256(),
        "fitted_on": result.fitted_on,
        "seed": config.seed,
        **result.found.as_json(),
    }
