"""The comparison as plain text for a terminal of 100 columns or a little more."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from finetune.report import wording
from finetune.report.document import DataSet, Difference, FewLabelResult, ProbeResult, ReportData

COLUMNS = 100


def render_terminal(data: ReportData) -> str:
    """Few-label scores, probes and what they allow one to say, as lines of text."""
    lines: list[str] = []
    if data.few_label:
        lines += ["Few labels: test AUC, mean over seeds (lowest–highest)"]
        lines += [*textwrap.wrap(wording.basis(data), COLUMNS), ""]
        for dataset in data.datasets:
            results = [result for result in data.few_label if result.dataset == dataset.name]
            if results:
                lines += [_heading(dataset), *_columns(_few_label(data, results, dataset.name)), ""]
    if data.probes:
        lines += [f"Probes on frozen features: test scores, AUC with {data.probe_interval}", ""]
        for dataset in data.datasets:
            own = [probe for probe in data.probes if probe.dataset == dataset.name]
            if own:
                lines += [_heading(dataset), *_columns(_probes(own)), ""]
    found = wording.findings(data).items()
    remarks = [f"{_name(data.dataset(name))}: {sentence}" for name, sentences in found for sentence in sentences]
    remarks += [f"{_name(dataset)}: {dataset.note}." for dataset in data.datasets if dataset.note]
    for remark in (*remarks, *data.notes, wording.NOT_FOR_CLINICAL_USE):
        lines += textwrap.wrap(remark, COLUMNS, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _few_label(data: ReportData, results: Sequence[FewLabelResult], name: str) -> Iterator[list[str]]:
    arms = list(data.arms)
    own = [difference for difference in data.differences if difference.dataset == name and difference.metric == "AUC"]
    yield ["labels", "arm", "seeds", "AUC", "difference in AUC to a baseline"]
    for result in sorted(results, key=lambda result: (result.budget, arms.index(result.arm))):
        gaps = [gap for gap in own if (gap.budget, gap.arm) == (result.budget, result.arm)]
        scores = [str(result.budget), result.arm, str(len(result.seeds)), wording.spread(result.auc)]
        yield [*scores, _gap(gaps[0]) if gaps else ""]
        for gap in gaps[1:]:
            yield ["", "", "", "", _gap(gap)]


def _gap(gap: Difference) -> str:
    return f"{wording.signed(gap.mean)} [{wording.interval(gap.low, gap.high, ', ')}] to {gap.baseline}"


def _probes(rows: Sequence[ProbeResult]) -> Iterator[list[str]]:
    yield ["probe", "labels", "features", "AUC", "accuracy", "balanced accuracy"]
    for row in rows:
        auc = wording.score(row.auc.value)
        if row.auc.low is not None and row.auc.high is not None:
            auc += f" ({wording.score(row.auc.low)}–{wording.score(row.auc.high)})"
        rest = (wording.score(row.accuracy.value), wording.score(row.balanced_accuracy.value))
        yield [row.probe, str(row.labels), row.features, auc, *rest]


def _columns(rows: Iterator[list[str]]) -> list[str]:
    cells = list(rows)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def _heading(dataset: DataSet) -> str:
    return f"{_name(dataset)}  {dataset.title}"


def _name(dataset: DataSet) -> str:
    return dataset.name if dataset.official else f"{dataset.name} [{wording.mark(dataset)}]"
