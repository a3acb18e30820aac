"""What an image is, and which of several is preferred, by the words of its description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from data_shards.sources.adni.facts import Facts
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
