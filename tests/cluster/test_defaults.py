"""Our settings of Ray and MLflow are settings they know, and never override the user's."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from cluster import defaults


@pytest.mark.parametrize(("package", "settings"), [("ray", defaults.RAY), ("mlflow", defaults.MLFLOW)])
def test_every_name_occurs_in_the_installed_source(package: str, settings: dict[str, str]) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    folder = Path(spec.origin).parent
    missing = set(settings)
    for path in folder.rglob("*.py"):
        text = path.read_text(errors="replace")
        missing -= {name for name in missing if f'"{name}"' in text}
        if not missing:
            break
    assert not missing, f"{package} does not know {sorted(missing)}"


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    defaults.apply()
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
