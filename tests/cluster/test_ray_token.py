"""A real Ray head that asks for a token: our commands with it, without it, with a wrong one; its page on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import TOKEN_NEEDED, TOKEN_REFUSED
from tests.cluster.ray_head import ROOT, RayHead
from tests.sockets import listening

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    cluster = RayHead(tmp_path_factory.mktemp("ray"), token=TOKEN).start()
    yield cluster
    cluster.stop()


def medformer(home: Path, *words: str, **environment: str) -> tuple[int, str]:
    """The command in a home folder of its own, where no token lies."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    found = subprocess.run(
        [sys.executable, "-m", "medformer", *words], capture_output=True, text=True, timeout=300,
        env={**inherited, "HOME": str(home), "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    return found.returncode, found.stdout + found.stderr


@pytest.mark.slow
def test_jobs_are_listed_with_the_token_and_refused_in_one_line_without_it(head: RayHead, tmp_path: Path) -> None:
    asked = ["jobs", "list", "--address", head.dashboard]
    assert medformer(tmp_path, *asked, RAY_AUTH_TOKEN=TOKEN) == (0, f"no job on {head.dashboard}\n")
    for environment, reason in (({}, TOKEN_NEEDED), ({"RAY_AUTH_TOKEN": "f" * 64}, TOKEN_REFUSED)):
        status, text = medformer(tmp_path, *asked, **environment)
        assert (status, text) == (2, f"medformer: error: Ray at {head.dashboard}: {reason}\n")


def test_the_page_of_the_cluster_is_on_loopback(head: RayHead) -> None:
    port = head.dashboard.rpartition(":")[2]
    assert {address for address in listening(head.head.pid) if address.endswith(f":{port}")} == {f"127.0.0.1:{port}"}
