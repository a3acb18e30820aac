"""Is Backforward worth its passes, and what does it say about internal covariate shift? On small networks of digits.

``python -m benchmarks.studies backforward FOLDER``.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from benchmarks.studies import backforward_runs as runs
from benchmarks.table import Table


def run(folder: Path) -> list[Table]:
    """Train what is missing, and put it together."""
    for seed in runs.SEEDS:
        parts = runs.drawn(seed)
        for setting in runs.SETTINGS:
            for rate, arm in itertools.product(setting.rates, runs.ARMS):
                runs.run(folder, setting, rate, arm, seed, parts)
    return []
