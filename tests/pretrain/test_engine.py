"""What a run leaves behind, and the parts of its state that the runs of the other tests do not use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_shards.reading.reader import ShardedDataset
from data_shards.support.documents import digest
from pretrain.bundle import load_bundle
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.engine import run
from tests.pretrain.runs import GroupRuntime, Run, document, untimed

pytestmark = pytest.mark.usefixtures("process_group")


def finished(shards: Path, out: Path, **changes: Any) -> Run:
    config = PretrainConfig.model_validate(document(shards, out, **changes))
    assert run(config, GroupRuntime()) == out / "bundle"
    return Run(out / "config.yaml", out)


def test_stochastic_depth_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    kwargs = {"embed_dim": 32, "depth": 3, "num_heads": 2, "latents": 2, "drop_path_rate": 0.5}
    changes = {"model": {"kwargs": kwargs}, "schedule": {"max_steps": 4}, "checkpoint": {"every_steps": 4}}
    whole = finished(shards, tmp_path / "whole", **changes)
    config = PretrainConfig.model_validate(document(shards, tmp_path / "stopped", **changes))
    assert run(config, GroupRuntime(stop_after=2)) is None
    assert run(config, GroupRuntime(), resume=True)
    assert untimed(Run(config.out, config.out).metrics()) == untimed(whole.metrics())
    names = [path / "bundle" / "model.safetensors" for path in (config.out, whole.out)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_bfloat16_follows_float32(shards: Path, tmp_path: Path) -> None:
    full, half = (
        finished(shards, tmp_path / precision, precision=precision, schedule={"max_steps": 1}).metrics()[0]
        for precision in ("fp32", "bf16")
    )
    assert half["loss"] != full["loss"]
    for name in ("loss", "barlow_twins/loss", "simclr/loss", "byol/loss"):
        assert half[name] == pytest.approx(full[name], rel=0.15), name


def test_a_run_leaves_its_document_its_record_its_checkpoints_and_its_bundle(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = {"schedule": {"max_steps": 7}, "checkpoint": {"every_steps": 2, "keep": 2}, "log_every_steps": 5}
    runtime = GroupRuntime()
    config = PretrainConfig.model_validate(document(shards, out, **changes))
    run(config, runtime)
    kept = ["bundle", "checkpoints", "config.yaml", "figures", "metrics.jsonl"]
    assert sorted(path.name for path in out.iterdir()) == kept
    assert PretrainConfig.model_validate(yaml.safe_load((out / "config.yaml").read_text())) == config
    assert [step for _, step in runtime.saved] == [2, 4, 6, 7]
    store = CheckpointStore(out / "checkpoints")
    assert [checkpoint.step for checkpoint in store.complete()] == [6, 7]
    for checkpoint in store.complete():
        checkpoint.verify()
    assert [line["step"] for line in Run(out, out).metrics()] == runtime.reported == [2, 4, 5, 6, 7]

    bundle = load_bundle(out / "bundle")
    assert bundle.backbone.num_classes == 0
    assert bundle.metrics["pretraining"] == Run(out, out).metrics()[-1]
    provenance = bundle.provenance
    assert provenance["config"] == json.loads(config.model_dump_json())
    assert provenance["config_sha256"] == digest(config) and provenance["steps"] == 7 and provenance["seed"] == 3
    assert provenance["objectives"] == list(config.objectives)
    (entry,) = provenance["datasets"]
    dataset = ShardedDataset(shards, "train")
    assert entry["manifest_sha256"] == dataset.manifest_digest and entry["samples"] == len(dataset)
    assert entry["official"] is False and "synthetic" in entry["note"]


def test_a_run_that_was_cut_off_before_its_bundle_writes_it_without_another_step(shards: Path, tmp_path: Path) -> None:
    config = PretrainConfig.model_validate(document(shards, tmp_path / "out", schedule={"max_steps": 2}))
    run(config, GroupRuntime())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "bundle").iterdir()}
    shutil.rmtree(tmp_path / "out" / "bundle")
    runtime = GroupRuntime()
    assert run(config, runtime, resume=True) == tmp_path / "out" / "bundle"
    assert runtime.reported == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "bundle").iterdir()} == before
