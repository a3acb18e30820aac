"""A server that lies: no file leaves the folder it is pulled into, no token goes to another host, nothing is unpickled.

The registry's answers are those of a real ``mlflow server``; a proxy before it changes some of them on the way.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.errors import RegistryError
from cluster.registry import Registry
from medformer.cli import main
from tests.cluster.conftest import TrackingServer

MakeBundle = Callable[..., Path]
TOKEN = "planted-token-5c1f"
_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host", "accept-encoding"}


class Proxy:
    """Passes on what it is asked, with bodies that ``change`` may rewrite; remembers the headers it was sent."""

    def __init__(self, server: TrackingServer, change: Callable[[str, bytes], bytes]) -> None:
        self.seen: list[dict[str, str]] = []
        self.paths: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _pass(self) -> None:
                outer.seen.append({name.lower(): value for name, value in self.headers.items()})
                outer.paths.append(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                upstream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
                sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                upstream.request(self.command, self.path, body or None, sent)
                answer = upstream.getresponse()
                content = change(self.path, answer.read())
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def proxy(server: TrackingServer, change: Callable[[str, bytes], bytes] = lambda path, body: body) -> Iterator[Proxy]:
    made = Proxy(server, change)
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.server.shutdown()


@pytest.fixture
def name() -> str:
    return f"nano-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def published(tracking_server: TrackingServer, make_bundle: MakeBundle, name: str) -> Registry:
    registry = Registry(tracking_server.uri)
    registry.publish(make_bundle(), name)
    return registry


def everything_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "away", ["../../evil.json", "/etc/evil.json", "a/../../evil.json", "..\\\\evil.json", "weights.pkl"]
)
def test_names_of_files_that_lead_elsewhere_are_refused(
    published: Registry, tracking_server: TrackingServer, name: str, tmp_path: Path, away: str
) -> None:
    def lie(path: str, body: bytes) -> bytes:
        return body.replace(b'\\"config.json\\"', b'\\"' + away.encode() + b'\\"') if "model-versions" in path else body

    inside = tmp_path / "inside"
    inside.mkdir()
    with proxy(tracking_server, lie) as between, pytest.raises(RegistryError, match="its record of files is damaged"):
        Registry(between.uri).pull(f"{name}:1", inside / "deep" / "pulled")
    assert "inside" in everything_under(tmp_path) and not list(tmp_path.rglob("evil*"))


def test_no_listing_of_the_server_is_asked_for_or_followed(
    published: Registry, tracking_server: TrackingServer, name: str, tmp_path: Path
) -> None:
    def lie(path: str, body: bytes) -> bytes:
        listing = {"files": [{"path": "../../../evil.json", "is_dir": False, "file_size": 1}]}
        return json.dumps(listing).encode() if re.search(r"artifacts\?path=|artifacts/list", path) else body

    with proxy(tracking_server, lie) as between:
        pulled = Registry(between.uri).pull(f"{name}:1", tmp_path / "inside" / "pulled")
        assert not [path for path in between.paths if re.search(r"artifacts\?path=|artifacts/list", path)]
    assert everything_under(pulled) == set(published.resolve(f"{name}:1").files)
    assert not list(tmp_path.rglob("evil*"))


def test_another_file_of_the_same_name_is_not_taken(
    published: Registry, tracking_server: TrackingServer, name: str, tmp_path: Path
) -> None:
    def lie(path: str, body: bytes) -> bytes:
        return b"\x80\x04cos\nsystem\n" if path.endswith("model.safetensors") else body

    with proxy(tracking_server, lie) as between, pytest.raises(RegistryError, match="damaged in the registry"):
        Registry(between.uri).pull(f"{name}:1", tmp_path / "inside" / "pulled")
    assert list((tmp_path / "inside").iterdir()) == []


@pytest.mark.parametrize("scheme", ["http", "mlflow-artifacts"])
def test_files_on_another_host_are_refused_and_see_no_token(
    published: Registry, tracking_server: TrackingServer, name: str, tmp_path: Path, scheme: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    location = published.resolve(f"{name}:1").location
    with proxy(tracking_server) as thief:
        elsewhere = f"{scheme}://localhost:{thief.server.server_port}/api/2.0/mlflow-artifacts/artifacts/x"

        def lie(path: str, body: bytes) -> bytes:
            return body.replace(location.encode(), elsewhere.encode()) if "model-versions" in path else body

        with proxy(tracking_server, lie) as between:
            with pytest.raises(RegistryError, match=r"not on the host of the registry .* tokens"):
                Registry(between.uri).pull(f"{name}:1", tmp_path / "pulled")
            # The token does go where it belongs.
            assert f"Bearer {TOKEN}" in {headers.get("authorization") for headers in between.seen}
        assert thief.seen == []
    assert list(tmp_path.glob("*pulled*")) == []


def test_tokens_and_passwords_stand_in_no_output(
    tracking_server: TrackingServer, make_bundle: MakeBundle, name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    password = "planted-password-77ab"
    bundle = make_bundle(metrics='{"auc": 1}')
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("MEDFORMER_HOME", str(tmp_path / "home"))
    with proxy(tracking_server) as between:
        host = between.uri.removeprefix("http://")
        address = f"http://ann:{password}@{host}"
        for words in (
            ["publish", str(bundle), "--name", name, "--alias", "champion"],
            ["show", name],
            ["show", f"{name}x"],
            ["promote", f"{name}:1", "best", "--not-worse", "nothing"],
            ["pull", f"{name}@champion", "--out", str(tmp_path / "pulled")],
            ["pull", f"{name}@nobody", "--out", str(tmp_path / "other")],
            ["list"],
        ):
            main(["models", *words, "--tracking-uri", address])
        assert any("authorization" in headers for headers in between.seen)
        tags = json.dumps(
            [dict(each.tags) for each in Registry(tracking_server.uri).store.client.search_model_versions()]
        )
    assert main(["models", "list", "--tracking-uri", f"http://ann:{password}@127.0.0.1:9"]) == 2
    said = "".join(capfd.readouterr())
    assert "127.0.0.1:9 does not answer" in said and "Traceback" not in said
    kept = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for secret in (TOKEN, password):
        assert secret not in said + tags + kept
    assert f"{name}:1" in said
