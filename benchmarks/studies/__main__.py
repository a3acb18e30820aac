"""``python -m benchmarks.studies NAME FOLDER [key=number ...]``: run a study and print its table."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

NAMES = (
    "transfer",
    "within",
    "latents",
    "spacing",
    "strategies",
    "heads",
    "calibration",
    "bags",
    "interpolation",
    "brainfuse",
    "objectives",
    "backbones",
    "backforward",
    "dba",
    "stems",
    "dba_medical",
    "explain",
    "embedding",
    "shift",
    "ablations",
    "recipe",
    "benchmark",
)


def main(arguments: list[str]) -> int:
    """Run the study called by the first argument in the folder of the second, with what options it has."""
    if len(arguments) < 2 or arguments[0] not in NAMES or not all("=" in each for each in arguments[2:]):
        print(f"usage: python -m benchmarks.studies {{{','.join(NAMES)}}} FOLDER [key=number ...]", file=sys.stderr)
        return 2
    options = {name: float(value) for name, _, value in (each.partition("=") for each in arguments[2:])}
    folder = Path(arguments[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    made = import_module(f"benchmarks.studies.{arguments[0]}").run(folder, **options)
    for table in made if isinstance(made, list) else [made]:
        print(table.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
