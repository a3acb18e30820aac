"""Three diagnoses and their spellings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from data_shards.sources.tables.roles import plain

CLASSES = {0: "CN", 1: "MCI", 2: "Dementia"}
Filling = Literal["drop", "forward", "backward", "nearest"]

# SMC is a memory concern without impairment; EMCI and LMCI are stages of MCI.
_SPELLINGS = {
    **dict.fromkeys(("cn", "nl", "normal", "control", "cognitivelynormal", "smc"), 0),
    **dict.fromkeys(("mci", "emci", "lmci", "earlymci", "latemci", "mildcognitiveimpairment"), 1),
    **dict.fromkeys(("dementia", "ad", "alzheimers", "alzheimersdisease", "alzheimerdisease"), 2),
}


def diagnosis_of(text: str) -> int | None:
    """The class of a diagnosis; of a change such as ``MCI to Dementia``, what it changed to."""
    return _SPELLINGS.get(plain(text.casefold().rpartition(" to ")[2]))


def fill(diagnoses: Sequence[int | None], days: Sequence[float], how: Filling) -> list[int | None]:
    """Fill in what is missing at visits of one subject.

    Args:
        diagnoses: in order of time.
        days: when the visits were, on any scale; rising.
        how: ``drop`` leaves it missing; ``forward`` takes the visit before, ``backward`` the visit after, ``nearest``
            the nearer of both and at a tie the one before.
    """
    result = list(diagnoses)
    for place, diagnosis in enumerate(diagnoses):
        if diagnosis is not None or how == "drop":
            continue
        before = next((other for other in range(place - 1, -1, -1) if diagnoses[other] is not None), None)
        after = next((other for other in range(place + 1, len(diagnoses)) if diagnoses[other] is not None), None)
        allowed = {"forward": (before,), "backward": (after,), "nearest": (before, after)}[how]
        near = [other for other in allowed if other is not None]
        if near:
            result[place] = diagnoses[min(near, key=lambda other: abs(days[other] - days[place]))]
    return result
