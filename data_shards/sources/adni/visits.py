"""From images to visits: what an image is, what belongs together, and which of several images of one kind is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_shards.sources.adni.facts import Code, Facts
from data_shards.sources.adni.study import Exam
from data_shards.sources.adni.tree import Entry
from data_shards.sources.tables.roles import plain

Preference = Literal["processed", "original"]
KINDS = ("mri", "pet", "pet_fdg", "pet_av45", "pet_pib", "pet_fbb", "pet_tau")

# Why an image gave way to another one, in the order in which they are compared; see rank().
PASSED_OVER = (
    "another description is preferred",
    "the other of original and processed is preferred",
    "a repeated acquisition",
    "less processed",
    "a revised version is there",
    "the smallest image identifier is taken",
)

_T1 = re.compile(r"\bmp ?rage|\bmpr\b|\bmt1\b|spgr\b|\bt1w?\b|\bt1 weighted|bravo\b")
_OTHER_SEQUENCE = re.compile(
    r"flair|\bt2|\bpd\b|dti|diffusion|\bdwi\b|\basl\b|perfusion|fmri|resting|\bepi\b|field ?map|\bgre\b|"
    r"hippo|swi\b"
)
_NO_ANATOMY = re.compile(r"locali[sz]er|scout|survey|calibration|\bcal\b|\bb1 (?:head|body)|\bmask\b|phantom")
_NO_EMISSION = re.compile(r"\bct ?ac\b|\bnac\b|\bac ct\b|transmission|attenuation|phantom|locali[sz]er|scout")
_TRACERS = {
    "pet_tau": re.compile(r"av1451|flortaucipir|\btau\b|mk6240|\bpi2620"),
    "pet_av45": re.compile(r"av45|florbetapir|amyvid"),
    "pet_fbb": re.compile(r"\bfbb|florbetaben|neuraceq"),
    "pet_pib": re.compile(r"\bpib|11cpib|pittsburgh"),
    "pet_fdg": re.compile(r"fdg|fludeoxyglucose"),
}
_PET = re.compile(r"\bpet\b")
_STEP = re.compile(r"\s*(?:;|__|,_|,\s)\s*")
_REPEAT = re.compile(r"\bmpr ?r\b|\brepeat|\brpt\b")
_REVISION = re.compile(r"[_ ]([0-9]{1,2})$")


def image_name(facts: Facts) -> tuple[str, str]:
    """The name of an image in its sample, one of :data:`KINDS`, and else the reason why it cannot be used.

    ``mri`` is T1-weighted MRI alone. A PET image is named by its tracer, in the sidecar or in the description; many
    descriptions of processed images name none, and then it is ``pet``.
    """
    words = _words(facts.description)
    tracer = _tracer(f"{_words(facts.tracer)} {words}")
    if facts.modality == "pet" or (not facts.modality and (tracer or _PET.search(words))):
        if _NO_EMISSION.search(words):
            return "", "PET without use: attenuation, transmission, phantom or localizer"
        return tracer or "pet", ""
    if facts.modality not in ("mri", ""):
        return "", "another modality than T1-weighted MRI and PET"
    if _NO_ANATOMY.search(words):
        return "", "a localizer, calibration, mask or phantom"
    if _OTHER_SEQUENCE.search(words) or not _T1.search(words):
        return "", "not known as a T1-weighted MRI by its description"
    return "mri", ""


def rank(facts: Facts, prefer: Preference, words: Sequence[str]) -> tuple[int, ...]:
    """What is smallest is taken; the places are those of :data:`PASSED_OVER`.

    Args:
        facts: of the image.
        prefer: processed or original images.
        words: parts of descriptions that the user prefers, the best first.
    """
    description = plain(facts.description)
    wanted = [place for place, word in enumerate(words) if plain(word) in description]
    steps = len([step for step in _STEP.split(facts.description.strip()) if step])
    original = plain(facts.kind) == "original" or (not facts.kind and steps == 1)
    revision = _REVISION.search(facts.description.strip())
    return (
        min(wanted, default=len(words)),
        int(original != (prefer == "original")),
        int(_REPEAT.search(_words(facts.description)) is not None),
        -steps,
        -int(revision.group(1)) if revision and steps > 1 else 0,
        facts.image_id or 0,
    )


def _tracer(words: str) -> str:
    return next((name for name, pattern in _TRACERS.items() if pattern.search(words)), "")


def _words(text: str) -> str:
    """Small letters and digits, everything else as one space; the dash of ``AV-45`` and ``18F-AV45`` is gone."""
    spaced = re.sub(r"[^a-z0-9]+", " ", text.casefold()).strip()
    return re.sub(r"\bav (45|1451)\b", r"av\1", spaced)


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

    The order of preference is that of :func:`~data_shards.sources.adni.visits.rank`; it does not depend on
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
