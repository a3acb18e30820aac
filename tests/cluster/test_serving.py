"""``mlflow models serve`` answers with a classifier of the registry, from a process that unpickles nothing."""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cluster.registry import Registry
from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.cluster.conftest import TrackingServer, free_port
from tests.finetune.samples import TINY, blobs, tiny_backbone
from tests.finetune.test_served import sent, write_pictures

ROOT = Path(__file__).resolve().parents[2]
LINEAR = {"head_options": {"reads": "embedding"}}


@pytest.fixture(scope="module")
def published(tracking_server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a classifier of pictures on the server, and its folder."""
    folder, name = tmp_path_factory.mktemp("served"), f"sides-{uuid.uuid4().hex[:8]}"
    bundle = save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    train = read_cases(write_pictures(folder / "train", 12, 1))["train"]
    FewLabelClassifier(bundle, **LINEAR).fit(train).save(folder / "classifier")
    words = ["models", "publish", str(folder / "classifier"), "--name", name, "--alias", "champion"]
    assert main([*words, "--tracking-uri", tracking_server.uri]) == 0
    return name, folder / "classifier"


@pytest.fixture(scope="module")
def service(published: tuple[str, Path], tracking_server: TrackingServer, tmp_path_factory: Any) -> Iterator[str]:
    """The address of ``mlflow models serve``."""
    port, log_path = free_port(), tmp_path_factory.mktemp("service") / "service.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{published[0]}@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    paths = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # MLflow's switch for models that hold pickles; its default lets them be loaded.
    strict = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": tracking_server.uri}
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **paths, **strict}, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log_path.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def asked(service: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{service}/invocations", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_answers_are_the_predictions_of_the_command(
    service: str, published: tuple[str, Path], tmp_path: Path
) -> None:
    new = write_pictures(tmp_path / "new", 6, 2)
    words = ["predict", str(published[1]), "--data", str(new), "--show-paths", "--out", str(tmp_path / "p.csv")]
    assert main(words) == 0
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    split = {"columns": ["content"], "data": [[sent(new / row["key"])["content"]] for row in rows]}
    answers = asked(service, {"dataframe_split": split})["predictions"]
    assert [answer["row"] for answer in answers] == list(range(6))
    for name in ("p(left)", "p(right)"):
        told, expected = ([float(each[name]) for each in side] for side in (answers, rows))
        np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)
    for name in ("predicted", "set", "abstains"):
        assert [answer.get(name, "") for answer in answers] == [row.get(name, "") for row in rows]
    # The same as records, with a column that the classifier has no use for.
    records = [sent(new / row["key"]) | {"subject": str(place)} for place, row in enumerate(rows)]
    assert asked(service, {"dataframe_records": records})["predictions"] == answers


def test_what_is_no_image_is_answered_with_the_reason(service: str) -> None:
    bad = base64.b64encode(b"no image").decode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(service, {"dataframe_split": {"columns": ["content"], "data": [[bad]]}})
    told = json.load(refused.value)
    assert refused.value.code == 400 and told["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "not a PNG" in told["message"] and "Traceback" not in json.dumps(told)


def test_nothing_stored_is_a_pickle_or_code(
    published: tuple[str, Path], tracking_server: TrackingServer, tmp_path: Path
) -> None:
    import mlflow

    registry = Registry(tracking_server.uri)
    with registry.store.as_default():
        folder = Path(
            mlflow.artifacts.download_artifacts(f"models:/{published[0]}@champion", dst_path=str(tmp_path / "all"))
        )
    stored = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    # MLflow's own download writes down which version it was.
    assert stored - {"registered_model_meta"} == {*registry.resolve(f"{published[0]}@champion").files, "MLmodel"}
    flavours = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    assert list(flavours) == ["python_function"]
    assert flavours["python_function"]["loader_module"] == "medformer.serving"
    assert not {"code", "python_model", "model_code_path"} & set(flavours["python_function"])
    # And what is pulled is what was published.
    pulled = registry.pull(f"{published[0]}@champion", tmp_path / "pulled")
    assert not (pulled / "MLmodel").exists()


def test_a_classifier_of_arrays_has_no_flavour(sqlite_uri: str, tmp_path: Path) -> None:
    cases, name = blobs(12, seed=1), f"arrays-{uuid.uuid4().hex[:8]}"
    bundle = save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    FewLabelClassifier(bundle, **LINEAR).fit(cases.images, cases.targets).save(tmp_path / "classifier")
    registry = Registry(sqlite_uri)
    published = registry.publish(tmp_path / "classifier", name)
    stored = {path.name for path in Path(published.location.removeprefix("file://")).rglob("*")}
    assert "classifier.json" in stored and "MLmodel" not in stored
