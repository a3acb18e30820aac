from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pytest

from data_shards.support.errors import MedformerError
from finetune.report.document import DataSet, ReportData
from finetune.report.page import render_page, write_page
from tests.finetune.report_sample import CHEST, sample_report

HOSTILE = "<script>alert('x')</script>&\"</style>"
VOID = {"meta", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects tables, attributes and the text outside of style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("caption", "figcaption"):
            self.captions.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.text.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if {"caption", "figcaption"} & set(self.open):
            self.captions[-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def report() -> ReportData:
    return sample_report()


@pytest.fixture(scope="module")
def page(report: ReportData) -> str:
    return render_page(report)


def test_the_page_is_well_formed_and_asks_for_nothing_outside_itself(page: str) -> None:
    reader = read(page)
    assert page.startswith("<!doctype html>\n<html lang=")
    assert "://" not in page
    assert not re.search(r"@import|url\(|javascript:", page)
    tags = {tag for tag, _, _ in reader.attributes}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert not [name for _, name, _ in reader.attributes if name == "src" or name.startswith("on")]
    assert all(value.startswith("#") for _, name, value in reader.attributes if name == "href")
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes


def test_every_chart_says_what_it_shows_and_has_a_table(page: str, report: ReportData) -> None:
    reader = read(page)
    charts = [value for tag, name, value in reader.attributes if tag == "svg" and name == "aria-label"]
    assert report.pretraining is not None
    assert len(charts) == 3 + len(report.embeddings) + len(report.pretraining.curves)
    assert all(len(label) > 20 for label in charts)
    assert len(reader.tables) >= len(charts) - len(report.pretraining.curves) + 1


def test_the_unofficial_mark_follows_the_name_wherever_it_is_shown(page: str) -> None:
    text = re.sub(r"\s+", " ", " ".join(read(page).text))
    shown = [match.end() for match in re.finditer(rf"\b{CHEST}\b", text)]
    assert len(shown) > 15
    assert all(text[end:].lstrip(" (").startswith("unofficial") for end in shown)
    spoken = re.findall(rf'aria-label="([^"]*{CHEST}[^"]*)"', page)
    assert spoken
    assert all("unofficial" in label for label in spoken)


def test_the_few_label_numbers_are_those_of_the_document(page: str, report: ReportData) -> None:
    tables = [table for table in read(page).tables if "AUC of each seed" in table[0]]
    rows = [row for table in tables for row in table[1:]]
    ordered = sorted(
        report.few_label,
        key=lambda result: (
            [dataset.name for dataset in report.datasets].index(result.dataset),
            result.budget,
            list(report.arms).index(result.arm),
        ),
    )
    assert len(rows) == len(ordered)
    for row, result in zip(rows, ordered, strict=True):
        assert row[:3] == [str(result.budget), result.arm, str(len(result.seeds))]
        assert row[3] == f"{fmean(result.auc):.3f} ({min(result.auc):.3f}–{max(result.auc):.3f})"
        assert row[4].startswith(f"{fmean(result.accuracy):.3f} ")
        assert row[5].startswith(f"{fmean(result.balanced_accuracy):.3f} ")
        assert row[6].split() == [f"{value:.3f}" for value in result.auc]


def test_differences_probes_and_confusion_are_those_of_the_document(page: str, report: ReportData) -> None:
    reader = read(page)
    shown = [row for table in reader.tables if "verdict" in table[0] for row in table[1:]]
    for row, gap in zip(shown, report.differences, strict=True):
        numbers = [float(text.replace("−", "-")) for text in (row[3], *row[4].split(" to "))]
        assert numbers == [round(value, 3) for value in (gap.mean, gap.low, gap.high)]
        assert (row[5] == "higher") == (gap.low > 0)
    probes = next(table for table in reader.tables if "features" in table[0])[1:]
    for row, probe in zip(probes, report.probes, strict=True):
        assert row[4] == f"{probe.auc.value:.3f} {probe.auc.low:.3f}–{probe.auc.high:.3f}"
    matrices = [table for table in reader.tables if table[0][0] == "true \\ predicted"]
    for table, matrix in zip(matrices, report.confusions, strict=True):
        counts = tuple(tuple(int(cell.split()[0]) for cell in row[1:-1]) for row in table[1:])
        assert counts == matrix.counts


def test_provenance_names_hashes_and_distinct_images(page: str, report: ReportData) -> None:
    assert report.config_sha256 in page
    assert all(digest in page for digest in report.hashes.values())
    for result in report.few_label:
        assert all(digest[:16] in page for digest in result.index_sha256)


def test_hostile_text_stays_text(report: ReportData) -> None:
    content = report.model_dump()
    content["title"] = content["command"] = HOSTILE
    content["notes"] = (HOSTILE,)
    hostile = {"note": HOSTILE, "title": HOSTILE, "classes": (HOSTILE, 'x" onload="y')}
    content["datasets"] = tuple({**each, **hostile} if each["name"] == CHEST else each for each in content["datasets"])
    content["pretraining"] = {"curves": ({"name": HOSTILE, "steps": (1, 2), "values": (0.5, 0.25)},)}
    page = render_page(ReportData.model_validate(content))
    reader = read(page)
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert not [name for _, name, _ in reader.attributes if name == "onload"]
    assert HOSTILE in unescape("".join(reader.text))


def test_a_report_with_only_probes_has_no_empty_sections(report: ReportData) -> None:
    lean = ReportData(
        title="probes", created="now", seed=1, config_sha256="0", code_version="0",
        datasets=report.datasets, probes=report.probes,
    )  # fmt: skip
    headings = re.findall(r"<h2>(.*?)</h2>", render_page(lean))
    assert headings == ["What came out", "Probes", "Data", "Provenance"]


def test_one_budget_and_one_seed_still_make_a_chart(report: ReportData) -> None:
    result = report.few_label[0].model_copy(update={"seeds": (0,), "auc": (0.5,), "accuracy": (0.5,)})
    content = report.model_dump(exclude={"few_label", "differences"})
    single = {**result.model_dump(), "balanced_accuracy": (0.5,)}
    page = render_page(ReportData.model_validate({**content, "few_label": (single,)}))
    read(page)
    assert not re.search(r"\bnan\b|\binf\b", page)


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, report: ReportData) -> None:
    assert write_page(report, tmp_path / "page.html").read_text() == render_page(report)
    with pytest.raises(MedformerError, match="cannot write"):
        write_page(report, tmp_path / "absent" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_equal_documents_make_equal_pages(page: str) -> None:
    assert render_page(sample_report()) == page


def test_an_unofficial_data_set_must_say_why() -> None:
    with pytest.raises(ValueError, match="does not say why"):
        DataSet(name="x", title="y", official=False)
