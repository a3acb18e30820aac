"""The sentences and numbers of a report: what the results allow one to say, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from finetune.origin import own_images
from finetune.report.document import DataSet, Difference, ReportData

NOT_FOR_CLINICAL_USE = "Research software. Not a medical device and not for clinical use."
UNOFFICIAL, OWN_IMAGES = "unofficial", "own images"
UNDEFINED = "undefined"
NO_SPREAD = "no spread over seeds"
HIGHER, LOWER, UNCLEAR = "higher", "lower", "no clear difference"
POOR_RECALL = 0.7
"""Below it a share of a class that is recognised is worth a sentence."""


def mark(dataset: DataSet) -> str:
    """What stands behind the name of a data set that is not official."""
    return OWN_IMAGES if own_images(dataset.note) else UNOFFICIAL


def score(value: float | None) -> str:
    """A score with three decimals, which is more than the seeds agree on."""
    return UNDEFINED if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference of scores with its sign."""
    if value is None:
        return UNDEFINED
    rounded = round(value, 3)
    return "0.000" if rounded == 0 else f"{rounded:+.3f}".replace("-", "−")


def spread(values: Sequence[float | None]) -> str:
    """The mean over seeds and, with more than one seed, the lowest and highest."""
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return UNDEFINED
    if len(defined) == 1:
        return score(defined[0])
    return f"{score(fmean(defined))} ({score(min(defined))}–{score(max(defined))})"


def interval(low: float | None, high: float | None, separator: str = " to ") -> str:
    """The interval of a difference."""
    return NO_SPREAD if low is None or high is None else f"{signed(low)}{separator}{signed(high)}"


def quantity(value: float, unit: str = "") -> str:
    """A logged value with four significant digits and its unit."""
    return f"{value:.4g} {unit}".strip()


def verdict(difference: Difference) -> str:
    """``higher``, ``lower`` or ``no clear difference``: the interval decides, not the mean."""
    if difference.low is None or difference.high is None:
        return UNCLEAR
    if difference.low > 0:
        return HIGHER
    if difference.high < 0:
        return LOWER
    return UNCLEAR


def basis(data: ReportData) -> str:
    """How the few-label differences are to be read: number of seeds, kind of interval, what decides."""
    counts = sorted({len(result.seeds) for result in data.few_label})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else "".join(f"{count} seeds" for count in counts)
    told = "higher or lower is said only where the interval excludes zero"
    return "; ".join(filter(None, (seeds, data.interval, told))) + "."


def findings(data: ReportData) -> dict[str, list[str]]:
    """What the few-label comparison and the probes show: sentences by data set, in the order of the data sets."""
    found = {}
    for dataset in data.datasets:
        of = (_few_label_findings, _confusion_findings, _probe_findings)
        sentences = [sentence for each in of for sentence in each(data, dataset.name)]
        if sentences:
            found[dataset.name] = sentences
    return found


def _few_label_findings(data: ReportData, name: str) -> Iterator[str]:
    """What does best with the most labels, and in how many paired differences pretraining shows anything."""
    own = [result for result in data.few_label if result.dataset == name and None not in result.auc]
    if own:
        budget = max(result.budget for result in own)
        most = [result for result in own if result.budget == budget]
        best = max(most, key=lambda result: _mean(result.auc))
        yield f"With {budget} labels '{best.arm}' does best: test AUC {spread(best.auc)}."
    gaps = [difference for difference in data.differences if difference.dataset == name]
    if not gaps:
        return
    counts = {word: sum(verdict(gap) == word for gap in gaps) for word in (HIGHER, LOWER, UNCLEAR)}
    if len(gaps) == 1:
        yield f"'{gaps[0].arm}' against '{gaps[0].baseline}': {_gap(gaps[0])}."
    else:
        told = [f"{count} {'not clear' if word == UNCLEAR else word}" for word, count in counts.items() if count]
        clear = max(gaps, key=lambda gap: abs(gap.mean) if verdict(gap) != UNCLEAR else -1.0)
        largest = f"; the largest clear one: '{clear.arm}' against '{clear.baseline}', {_gap(clear)}"
        yield (
            f"Of {len(gaps)} paired differences to a baseline: {', '.join(told)}"
            f"{largest if counts[HIGHER] + counts[LOWER] else ''}."
        )
    if not counts[HIGHER]:
        yield "It is not shown that pretraining helps here."


def _gap(gap: Difference) -> str:
    return f"{signed(gap.mean)} in {gap.metric} with {gap.budget} labels, {verdict(gap)}"


def _mean(values: Sequence[float | None]) -> float:
    return fmean(value for value in values if value is not None)


def _confusion_findings(data: ReportData, name: str) -> Iterator[str]:
    """A word where a class is mostly missed, whatever the AUC beside it says."""
    for matrix in data.confusions:
        if matrix.dataset != name:
            continue
        classes = data.dataset(name).classes
        recalls = [(row[place] / sum(row), place) for place, row in enumerate(matrix.counts) if sum(row)]
        recall, place = min(recalls, default=(1.0, 0))
        if recall < POOR_RECALL:
            found, total = matrix.counts[place][place], sum(matrix.counts[place])
            yield (
                f"Mind that {matrix.caption}, recognises only {found} of {total} images of '{classes[place]}' "
                f"({100 * recall:.0f} %): an AUC speaks of the order of the probabilities, not of decisions."
            )


def _probe_findings(data: ReportData, name: str) -> Iterator[str]:
    own = [probe for probe in data.probes if probe.dataset == name]
    for probe, labels in dict.fromkeys((p.probe, p.labels) for p in own):
        of_probe = [p for p in own if (p.probe, p.labels) == (probe, labels)]
        auc = {p.features: p.auc.value for p in of_probe if p.auc.value is not None}
        pretrained = next((features for features in auc if features.startswith("pretrained")), None)
        if pretrained is None:
            continue
        better = [features for features, value in auc.items() if value > auc[pretrained]]
        if better:
            others = " and ".join(f"'{features}' ({score(auc[features])})" for features in better)
            yield (
                f"A {probe} probe on {labels} labels scores higher on {others} than on '{pretrained}' "
                f"({score(auc[pretrained])}): pretraining did not help this probe."
            )
