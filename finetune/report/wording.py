"""The sentences and numbers of a report: what the results allow one to say, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from finetune.report.document import Difference, ReportData

NOT_FOR_CLINICAL_USE = "Research software. Not a medical device and not for clinical use."
UNOFFICIAL = "unofficial"
UNDEFINED = "undefined"
NO_SPREAD = "no spread over seeds"


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
        return "no clear difference"
    if difference.low > 0:
        return "higher"
    if difference.high < 0:
        return "lower"
    return "no clear difference"


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
        sentences = [*_few_label_findings(data, dataset.name), *_probe_findings(data, dataset.name)]
        if sentences:
            found[dataset.name] = sentences
    return found


def _few_label_findings(data: ReportData, name: str) -> Iterator[str]:
    own = [difference for difference in data.differences if difference.dataset == name]
    for arm, baseline, metric in dict.fromkeys((d.arm, d.baseline, d.metric) for d in own):
        rows = [d for d in own if (d.arm, d.baseline, d.metric) == (arm, baseline, metric)]
        parts = []
        for word in ("higher", "lower", "no clear difference"):
            alike = sorted((d for d in rows if verdict(d) == word), key=lambda d: d.budget)
            if alike:
                parts.append(f"{word} with {', '.join(f'{d.budget} ({signed(d.mean)})' for d in alike)} labels")
        sentence = f"'{arm}' against '{baseline}': test {metric} {'; '.join(parts)}."
        if not any(verdict(d) == "higher" for d in rows):
            sentence += f" '{arm}' did not help here."
        yield sentence


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
                f"a {probe} probe on {labels} labels scores higher on {others} than on '{pretrained}' "
                f"({score(auc[pretrained])}): pretraining did not help this probe."
            )
