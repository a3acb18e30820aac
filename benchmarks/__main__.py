"""``python -m benchmarks [NAME ...]``: run benchmarks and write their tables into ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.table import machine

NAMES = (
    "readers", "volumes", "writing", "shards", "listing", "scaling", "gradients", "perceivers", "masked", "views",
    "spd", "mil", "per_sample", "utilisation", "weak_scaling", "elastic", "recovery", "checkpointing", "plan",
    "costs", "stems", "allocator", "intensity", "compression", "crops", "busy",
)  # fmt: skip
RESULTS = Path(__file__).with_name("RESULTS.md")


def main(names: list[str]) -> int:
    """Run the benchmarks called ``names``, all by default; the file is rewritten only when all were run."""
    if unknown := sorted(set(names) - set(NAMES)):
        print(f"benchmarks: unknown {unknown[0]!r}; valid: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    sections = []
    for name in names or NAMES:
        sections.append(import_module(f"benchmarks.{name}").run().markdown())
        print(sections[-1])
    if not names:
        head = f"# Results\n\nMeasured {datetime.now(UTC):%Y-%m-%d} on {machine()}. `make bench` repeats them.\n"
        RESULTS.write_text("\n".join([head, *sections]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
