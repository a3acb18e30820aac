"""Which tests run on one worker when they run beside each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_RAY = "pytest.mark.cluster"


class FileScheduling(LoadScopeScheduling):
    """Tests of a file stay on one worker, which sets its fixtures up once; so do all files that start a Ray.

    xdist's own groups do not reach it: 3.8 writes them into an attribute that pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(self.config.rootpath, nodeid)


def group(root: Path, nodeid: str) -> str:
    """The name of the tests that a test stays with: its file, or ``cluster``."""
    file = nodeid.partition("::")[0]
    return "cluster" if starts_ray(root / file) else file


@cache
def starts_ray(path: Path) -> bool:
    """Whether a file of tests has one that is marked so."""
    return _RAY in path.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Take the place of what ``--dist`` names."""
    return FileScheduling(config, log)
