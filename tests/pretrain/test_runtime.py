"""A process that trains on its own leaves its environment as it found it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.pretrain.runs import GROUP_VARIABLES

ALONE = """
import os
from pretrain.runtime import TorchRuntime
before = dict(os.environ)
runtime = TorchRuntime()
assert (runtime.rank, runtime.world_size) == (0, 1)
runtime.close()
assert dict(os.environ) == before, set(os.environ) ^ set(before)
"""


def test_what_a_single_process_starts_afterwards_is_not_a_rank_of_its_group() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in GROUP_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
