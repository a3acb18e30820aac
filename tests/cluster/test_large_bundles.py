"""Bundles larger than memory should be needed for: through a server with proxied artifacts, and on from where it broke.

The weights are a sparse file, so that no disk has to hold what is published; what is stored and pulled is all there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cluster import transfer
from cluster.errors import RegistryError
from cluster.registry import Registry
from tests.cluster.conftest import TrackingServer

MakeBundle = Callable[..., Path]
MIB, GIB = 1 << 20, 1 << 30
MEASURED = """
import resource, sys
from pathlib import Path
from cluster.registry import Registry
registry = Registry(sys.argv[1])
registry.list()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[2] == "publish":
    registry.publish(Path(sys.argv[4]), sys.argv[3])
else:
    registry.pull(f"{sys.argv[3]}:1", Path(sys.argv[4]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def sparse_weights(path: Path, size: int) -> None:
    """A safetensors file of one tensor of zeros, of which the disk holds only the header."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


def grown_mib(uri: str, verb: str, name: str, folder: Path) -> float:
    """By how much the memory of a process grows at most that publishes or pulls."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, uri, verb, name, str(folder)],
        capture_output=True, text=True, timeout=1500, check=True,
    )  # fmt: skip
    return int(done.stdout) / 1024


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [600 * MIB, 5 * GIB])
@pytest.mark.slow
def test_a_large_bundle_goes_through_a_server_in_little_memory(
    new_tracking_server: TrackingServer, make_bundle: MakeBundle, tmp_path: Path, size: int
) -> None:
    if shutil.disk_usage(tmp_path).free < 3 * size:
        pytest.skip(f"needs {3 * size} bytes of disk")
    bundle, name = make_bundle(), f"large-{uuid.uuid4().hex[:8]}"
    sparse_weights(bundle / "model.safetensors", size)
    published = grown_mib(new_tracking_server.uri, "publish", name, bundle)
    pulled = grown_mib(new_tracking_server.uri, "pull", name, tmp_path / "pulled")
    print(f"{size} bytes: memory grew by {published:.0f} MiB to publish and {pulled:.0f} MiB to pull")
    assert (tmp_path / "pulled" / "model.safetensors").stat().st_size == (bundle / "model.safetensors").stat().st_size
    assert published < 64 and pulled < 64
    shutil.rmtree(tmp_path / "pulled")
    shutil.rmtree(new_tracking_server.folder / "artifacts")


@pytest.mark.slow
def test_a_pull_goes_on_where_the_server_was_killed(
    new_tracking_server: TrackingServer, make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server, name = new_tracking_server, f"large-{uuid.uuid4().hex[:8]}"
    bundle = make_bundle(size=50_000_000)  # 200 MB that are not all zero
    registry = Registry(server.uri)
    registry.publish(bundle, name)
    published = registry.resolve(f"{name}:1")
    destination = tmp_path / "out" / "pulled"
    partial = destination.with_name(".pulled.pull.partial")
    iter_content = requests.Response.iter_content

    def cut(response: requests.Response, *arguments: Any) -> Iterator[bytes]:
        """The server is killed when 20 MB of the weights have come."""
        for place, chunk in enumerate(iter_content(response, *arguments)):
            if place == 20:
                server.kill()
            yield chunk

    with monkeypatch.context() as patched:
        patched.setattr(requests.Response, "iter_content", cut)
        with pytest.raises(RegistryError) as told:
            registry.pull(f"{name}:1", destination)
    (begun,) = partial.glob("model.safetensors.*.part")
    have = begun.stat().st_size
    assert 20 * MIB <= have < published.files["model.safetensors"].size_bytes
    message = str(told.value)
    assert re.search(r"cannot fetch .*model\.safetensors: ", message) and "\n" not in message
    assert message.endswith(f"; what has come is kept in {partial}, and the next pull goes on from there")
    assert not destination.exists()

    asked: list[str] = []
    over_http = transfer._over_http

    def noted(repository: object, file: str, path: Path) -> None:
        asked.append(f"{file} from {path.stat().st_size if path.exists() else 0}")
        over_http(repository, file, path)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "_over_http", noted)
    server.start()
    registry.pull(f"{name}:1", destination)
    assert f"model.safetensors from {have}" in asked and sum("model.safetensors" in each for each in asked) == 1
    assert (destination / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()
    assert [path.name for path in destination.parent.iterdir()] == ["pulled"]


def test_a_beginning_that_is_damaged_is_fetched_again(
    tracking_uri: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    registry, bundle, name = Registry(tracking_uri), make_bundle(), f"nano-{uuid.uuid4().hex[:8]}"
    published = registry.publish(bundle, name)
    weights = published.files["model.safetensors"]
    partial = tmp_path / ".pulled.pull.partial"
    partial.mkdir()
    (partial / f"model.safetensors.{weights.sha256[:16]}.part").write_bytes(bytes(100))
    (partial / f"model.safetensors.{'0' * 16}.part").write_bytes(bytes(100))  # of another model
    pulled = registry.pull(f"{name}:1", tmp_path / "pulled")
    assert (pulled / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()
    assert {path.name for path in pulled.iterdir()} == set(published.files)
