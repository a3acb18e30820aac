from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data_shards.storage.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as server:
        yield server
