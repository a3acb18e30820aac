"""From images to visits: what belongs together, and which of several images of one kind is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from data_shards.sources.adni.codes import Code
from data_shards.sources.adni.description import PASSED_OVER, Preference, rank
from data_shards.sources.adni.facts import Facts
from data_shards.sources.adni.study import Exam
from data_shards.sources.adni.tree import Entry


@dataclass(frozen=True)
class Scan:
    """One image with all that is known of it.

    Attributes:
        entry: where it lies.
        facts: of the tables, the sidecar and the path together.
        name: in the sample: ``mri``, ``pet_fdg`` ...
        code: of the visit.
        exam: the examination in the study table, where there is one.
    """

    entry: Entry
    facts: Facts = field(repr=False)
    name: str
    code: Code = field(repr=False)
    exam: Exam | None = field(repr=False)

    @property
    def visit(self) -> str:
        """What names the visit in the study: its month, else its code; empty when neither is known."""
        if self.month is not None:
            return f"m{self.month:03d}"
        return self.exam.code.text if self.exam else self.code.text

    @property
    def month(self) -> int | None:
        """Months from the baseline to the visit: by the code of the image, else by that of the examination."""
        month = self.code.month_for(self.exam.joined if self.exam else "")
        return self.exam.month if month is None and self.exam else month


@dataclass(frozen=True)
class Visit:
    """The images of one subject at one visit.

    Attributes:
        ptid: identifier of the subject.
        name: tells apart the visits of the subject.
        scans: the images.
        exam: the examination in the study table, where there is one.
        month: months since the baseline, by the codes of the visit.
    """

    ptid: str = field(repr=False)
    name: str = field(repr=False)
    scans: tuple[Scan, ...]
    exam: Exam | None = field(repr=False)
    month: int | None


def join(scans: Sequence[Scan], days: int) -> list[Visit]:
    """The visits of one subject, from all its images.

    Images with the same code, or examination, are of one visit. An image without code belongs to the nearest visit
    that has an image within ``days`` days; images without code that are so near to each other make a visit.
    """
    groups: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.visit:
            groups.setdefault(scan.visit, []).append(scan)
    nameless = [scan for scan in scans if not scan.visit]
    dates = {name: [scan.facts.date for scan in group if scan.facts.date] for name, group in groups.items()}
    for scan in sorted(nameless, key=lambda scan: (str(scan.facts.date), scan.facts.image_id or 0)):
        date = scan.facts.date
        if date is None:
            groups[f"image {scan.facts.image_id}"] = [scan]
            continue
        gaps = [(abs((date - other).days), name) for name, others in dates.items() for other in others]
        gap, name = min(gaps, default=(days + 1, ""))
        if gap > days:
            name = f"date {date}"
            dates[name] = [date]  # alone: a chain of images must not grow beyond the window
        groups.setdefault(name, []).append(scan)
    return [_visit(name, group) for name, group in sorted(groups.items())]


def choose(
    scans: Sequence[Scan], prefer: Preference, words: Sequence[str]
) -> tuple[list[Scan], list[tuple[Scan, str]]]:
    """One image of each name, and for each other one the reason why it was passed over.

    The order of preference is that of :func:`~data_shards.sources.adni.description.rank`; it does not depend on
    the order of ``scans``.
    """
    ranked = sorted(((rank(scan.facts, prefer, words), scan) for scan in scans), key=lambda pair: pair[0])
    best: dict[str, tuple[tuple[int, ...], Scan]] = {}
    passed_over = []
    for order, scan in ranked:
        taken, _ = best.setdefault(scan.name, (order, scan))
        if taken != order:
            differs = next(place for place, (one, other) in enumerate(zip(taken, order, strict=True)) if one != other)
            passed_over.append((scan, PASSED_OVER[differs]))
    return [scan for _, (_, scan) in sorted(best.items())], passed_over


def _visit(name: str, scans: Sequence[Scan]) -> Visit:
    exam = next((scan.exam for scan in scans if scan.exam is not None), None)
    month = next((scan.month for scan in scans if scan.month is not None), None)
    return Visit(scans[0].facts.ptid, name, tuple(scans), exam, month)
