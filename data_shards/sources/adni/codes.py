"""Visit codes of all phases of ADNI, as months since the baseline.

ADNI1 and ADNIGO write ``sc``, ``bl``, ``m06``. ADNI2 counts its own visits (``v11`` is its first year) and ADNI3 its
years (``y2``), from the day on which the phase began for a subject: for those who had joined before, such a count is
no month since their baseline. Newer tables number visits 1, 2, 3, which says nothing of time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_shards.sources.tables.roles import plain

_BASELINES = {"sc", "scmri", "bl", "screening", "screeningmri", "baseline", "v01", "v02", "v03", "m0", "m00", "m000"}
_ADNI2_MONTHS = {"v04": 3, "v05": 6} | {
    f"v{year}{half}": 12 * year + 6 * (half - 1) for year in range(1, 6) for half in (1, 2)
}
_MONTH = re.compile(r"(?:adni1go|adni1|adnigo|adni)?(?:month|m)([0-9]{1,3})(?:mri)?")
_ADNI2_MONTH = re.compile(r"adni2month([0-9]{1,3})(?:mri)?newpt")
_YEAR = re.compile(r"y([0-9]{1,2})|(adni[234])year([0-9]{1,2})(?:visit)?")
_SPOKEN_BASELINE = re.compile(r"adni(?:1go|go|[1234])?(?:screening|baseline)(?:mri)?(?:newpt)?")


@dataclass(frozen=True)
class Code:
    """One visit code.

    Attributes:
        text: letters and digits of the code; empty for no code.
        month: months since the baseline, or None.
        phase: ``month`` holds only for subjects who joined in this phase; empty: for all.
    """

    text: str = ""
    month: int | None = None
    phase: str = ""

    def month_for(self, joined: str) -> int | None:
        """The month for a subject who joined in the phase ``joined``; None when the code says none for that subject."""
        return self.month if not self.phase or self.phase == joined else None


def visit_code(written: str) -> Code:
    """Read a code or its long form, such as ``ADNI2 Year 1 Visit``."""
    text = plain(written)
    if text in _BASELINES or _SPOKEN_BASELINE.fullmatch(text):
        return Code(text, 0)
    if text in _ADNI2_MONTHS:
        return Code(text, _ADNI2_MONTHS[text], "ADNI2")
    if found := _MONTH.fullmatch(text):
        return Code(text, int(found.group(1)))
    if found := _ADNI2_MONTH.fullmatch(text):
        return Code(text, int(found.group(1)), "ADNI2")
    if found := _YEAR.fullmatch(text):
        short, phase, year = found.groups()
        return Code(text, 12 * int(short or year), phase.upper() if phase else "ADNI3")
    return Code(text)
