"""The miniature export, written once; tests that change it write their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data_shards.sources.adni.export import write_export


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export"))
