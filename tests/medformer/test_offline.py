"""Nothing leaves this machine unasked: commands run where every attempt is recorded and refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.documents import ROOT

BLOCK = "a = __import__('socket').socket(); a.settimeout(1); a.connect(('192.0.2.77', 80))"
NAME = "__import__('urllib.request').request.urlopen('http://nowhere.example/', timeout=1)"


class Offline:
    """Runs programs that cannot leave this machine; ``attempts`` are those that tried."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "connections"

    def run(self, *words: str, limit_s: float = 280) -> subprocess.CompletedProcess[str]:
        switches = ("MLFLOW_", "RAY_", "HF_", "DO_NOT_TRACK")  # what the system sets is what is tested
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(switches)}
        watched = {
            **inherited,
            "PYTHONPATH": f"{ROOT / 'tests' / 'offline'}{os.pathsep}{ROOT}",
            "MEDFORMER_TEST_CONNECTIONS": str(self.record),
            "MEDFORMER_HOME": str(self.folder / "home"),
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=watched, cwd=self.folder, timeout=limit_s
        )

    def medformer(self, *words: str, **options: float) -> str:
        found = self.run("-m", "medformer", *words, **options)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    @property
    def attempts(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    return Offline(tmp_path)


@pytest.mark.parametrize(("code", "told"), [(BLOCK, "socket.connect 192.0.2.77"), (NAME, "nowhere.example")])
def test_an_attempt_is_seen_and_refused_in_processes_of_processes_too(offline: Offline, code: str, told: str) -> None:
    child = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    found = offline.run("-c", child)
    assert found.returncode != 0 and "is not this machine" in found.stderr
    assert len(offline.attempts) == 1 and told in offline.attempts[0]


def test_the_doctor_asks_nobody(offline: Offline) -> None:
    found = offline.run("-m", "medformer", "doctor")  # whatever it finds: a busy machine may be too slow for it
    assert "\nThe core " in found.stdout, found.stderr
    assert offline.attempts == []


def test_a_model_carried_in_as_files_is_registered_and_pulled_without_anybody_else(offline: Offline) -> None:
    import torch
    from timm import create_model

    from pretrain.bundle import save_bundle

    torch.manual_seed(0)
    backbone = create_model("medformer_nano", num_classes=0, depth=1)
    save_bundle(offline.folder / "carried", backbone, "medformer_nano", {"depth": 1}, {}, {})
    offline.medformer("models", "publish", "carried", "--name", "chest", "--alias", "champion")
    offline.medformer("models", "pull", "chest@champion", "--out", "pulled")
    assert (offline.folder / "pulled/model.safetensors").read_bytes() == (
        offline.folder / "carried/model.safetensors"
    ).read_bytes()
    assert offline.attempts == []


USAGE = """
from cluster import defaults
defaults.apply()
from ray._common.usage import usage_lib
print(usage_lib.get_cluster_config_to_report("ray_bootstrap_config.yaml").cloud_provider)
print(usage_lib._usage_stats_report_url(), usage_lib.usage_stats_enabled())
"""


@pytest.mark.cluster
def test_a_head_of_ray_reports_to_nobody_and_asks_in_which_cloud_it_is_unless_a_file_says_so(offline: Offline) -> None:
    told = offline.run("-c", USAGE).stdout.splitlines()
    assert told == ["unknown", "http://127.0.0.1:9 False"]
    asked = [line.split()[1] for line in offline.attempts]
    assert asked == ["169.254.169.254", "metadata.google.internal", "169.254.169.254"]  # as docs/operations.md says
    offline.record.unlink()
    (offline.folder / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
    assert offline.run("-c", USAGE).stdout.splitlines() == ["local", told[1]]
    assert offline.attempts == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_pretraining_on_a_ray_of_our_own_asks_nobody(offline: Offline) -> None:
    document = yaml.safe_load((ROOT / "configs" / "medmnist-nano.yaml").read_text())
    offline.medformer("shards", "build", "phantoms", "--set", "phantom-knee-mri-2d", "subjects=40", "--out", "shards")
    document["data"]["datasets"] = [{"path": str(offline.folder / "shards" / "phantom-knee-mri-2d")}]
    document.pop("probes", None)
    document |= {"out": "run", "schedule": {**document["schedule"], "epochs": 1, "max_steps": 3}}
    document["cluster"] = {**document.get("cluster", {}), "workers": 1, "model_name": "knee", "dashboard": True}
    (offline.folder / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")  # see docs/operations.md
    (offline.folder / "run.yaml").write_text(yaml.safe_dump(document))
    assert "model bundle: " in offline.medformer("pretrain", "run.yaml", limit_s=800)
    assert offline.attempts == []
