"""Why the workers of a run were started again: a file in its folder, one line each."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

RESTARTS_FILE = "restarts.jsonl"


def note(out: Path, attempt: int | None, reason: str) -> None:
    """Write down why the workers that train now end, once for each start of them.

    Args:
        out: the folder of the run.
        attempt: which start of the workers it is.
        reason: in words, one line.
    """
    if any(known == attempt for known, _ in reasons(out)):
        return
    line = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "attempt": attempt, "reason": reason}
    # On a full disk nothing is noted: it is told by the checkpoint that does not fit.
    with suppress(OSError), open(out / RESTARTS_FILE, "a") as file:
        file.write(json.dumps(line) + "\n")


def reasons(out: Path) -> list[tuple[int | None, str]]:
    """The start of the workers that ended, and why, oldest first."""
    path = out / RESTARTS_FILE
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            found.append((entry["attempt"], str(entry["reason"])))
        except (ValueError, KeyError, TypeError):  # torn by a process that was killed
            continue
    return found
