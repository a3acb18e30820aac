"""Passwords and tokens come from the environment, and are in no message, record or job."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster import defaults
from cluster.errors import RegistryError
from cluster.jobs.client import Jobs, _environment
from cluster.jobs.package import check_paths
from cluster.store import Store
from data_shards.support.documents import parse, recorded, write_resolved
from data_shards.support.errors import ConfigError
from data_shards.support.secrets import has_password, without_secrets
from medformer.cli import main
from pretrain.changes import differences
from pretrain.config import PretrainConfig
from tests.documents import ROOT

SECRET = "hunter2"


def document(**cluster: object) -> dict:
    content = yaml.safe_load((ROOT / "configs" / "medmnist-nano.yaml").read_text())
    return {**content, "cluster": {**content.get("cluster", {}), **cluster}}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    found = capsys.readouterr()
    return found.out + found.err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:hunter2@host/a", True),
        ("https://me@host/a", True),
        ("simplecache::s3://key:hunter2@bucket/a", True),
        ("https://host:80/a@b?c=d@e", False),
        ("sqlite:////home/me/medformer.db", False),
        ("/data/a@b", False),
    ],
)
def test_an_address_with_a_user_is_told_from_one_without(url: str, expected: bool) -> None:
    assert has_password(url) is expected


def test_a_document_is_recorded_without_what_is_secret_in_its_addresses() -> None:
    content = {"a": ["https://u:hunter2@h/x?sig=hunter2", 3], "b": {"c": "s3://k:hunter2@b/y", "d": "chest@champion"}}
    assert without_secrets(content) == {"a": ["https://h/x", 3], "b": {"c": "s3://b/y", "d": "chest@champion"}}


def test_a_run_on_shards_behind_a_password_has_it_only_in_a_file_of_its_owner(tmp_path: Path) -> None:
    content = document()
    content["data"]["datasets"][0]["path"] = f"https://me:{SECRET}@host/shards"
    config = parse(PretrainConfig, content, "run.yaml")
    assert SECRET not in yaml.safe_dump(recorded(config))  # parameters in MLflow, provenance of the bundle
    assert stat.S_IMODE(write_resolved(config, tmp_path).stat().st_mode) == 0o600
    other = {**config.model_dump(mode="json"), "seed": 1}
    other["data"] = {"datasets": [{"path": f"https://me:{SECRET}@elsewhere/shards"}]}
    assert SECRET in str(other)
    with pytest.raises(ConfigError, match=r"data.datasets.0.path: https://host/shards: .* environment of the cluster"):
        check_paths(config.model_copy(update={"out": tmp_path}))


def test_a_changed_address_is_told_without_its_password() -> None:
    found = list(differences({"path": f"https://me:{SECRET}@a/x"}, {"path": f"https://me:{SECRET}@b/x"}))
    assert found == ["path: https://a/x then, https://b/x now"]


def test_a_document_with_the_password_of_a_tracking_server_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(document(tracking_uri=f"https://me:{SECRET}@tracking")))
    assert main(["pretrain", str(path)]) == 2
    text = said(capsys)
    assert "MLFLOW_TRACKING_PASSWORD" in text and SECRET not in text


def test_a_value_that_is_refused_is_shown_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(ROOT / "configs/medmnist-nano.yaml"), f"seed=https://me:{SECRET}@host/x"]) == 2
    text = said(capsys)
    assert "seed" in text and "https://host/x" in text and SECRET not in text


def test_the_password_in_the_address_of_a_server_goes_where_mlflow_looks_and_into_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}%21@127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"tracking server http://127.0.0.1:9 does not answer") as caught:
        Store()
    assert SECRET not in str(caught.value)
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me" and os.environ["MLFLOW_TRACKING_PASSWORD"] == f"{SECRET}!"


def test_a_server_is_asked_with_the_password_of_its_address(monkeypatch: pytest.MonkeyPatch, tracking_server) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "before")
    store = Store(tracking_server.uri.replace("http://", f"http://me:{SECRET}@"))
    assert store.shown == store.uri == tracking_server.uri
    assert store.client.search_experiments(max_results=1)


def test_a_job_has_no_secret_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{SECRET}@tracking")
    assert SECRET not in str(_environment())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking/a@b")
    assert _environment()["MLFLOW_TRACKING_URI"] == "https://tracking/a@b"


def test_the_address_of_a_dashboard_holds_no_password() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN") as caught:
        Jobs(f"http://me:{SECRET}@127.0.0.1:9")
    assert SECRET not in str(caught.value)


def test_a_token_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    defaults.apply()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    defaults.apply()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


KEEP = "from cluster.ray_token import keep_private; keep_private()"


@pytest.mark.parametrize("before", [None, "of-an-older-ray"])
def test_the_token_of_a_ray_of_ours_is_readable_by_its_owner_only(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / ".ray" / "auth_token"
    if before is not None:
        path.parent.mkdir()
        path.write_text(before)
        path.chmod(0o644)
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KEEP], env=environment, check=True, umask=0o022)
        token = path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert token == before if before else len(token) == 64
        before = token
    assert [file.name for file in path.parent.iterdir()] == ["auth_token"]


def test_no_token_file_is_made_where_the_environment_has_one(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": SECRET}
    subprocess.run([sys.executable, "-c", KEEP], env={**environment, "RAY_AUTH_MODE": "token"}, check=True)
    assert not (tmp_path / ".ray").exists()
