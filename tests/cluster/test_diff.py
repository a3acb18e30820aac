"""Two versions side by side: what differs, and nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.registry import Registry
from medformer.cli import main

MakeBundle = Callable[..., Path]


def provenance(lr: float, manifest: str, out: str) -> str:
    config = {"out": out, "optimizer": {"lr": lr, "name": "adamw"}, "cluster": {"workers": len(out)}}
    chest = {"name": "chest", "samples": 10, "manifest_sha256": manifest}
    return json.dumps({"config": config, "config_sha256": out, "seed": 1, "datasets": [chest]})


def test_two_versions_differ_in_config_data_and_metrics(
    tracking_uri: str, make_bundle: MakeBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    name, registry, store = f"nano-{uuid.uuid4().hex[:8]}", Registry(tracking_uri), ["--tracking-uri", tracking_uri]
    registry.publish(make_bundle(seed=1, provenance=provenance(0.1, "a" * 64, "x"), metrics='{"auc": 0.5}'), name)
    second = make_bundle(
        seed=2, provenance=provenance(0.2, "b" * 64, "yy"), metrics='{"auc": 0.75, "dice": {"estimate": 0.5}}'
    )
    registry.publish(second, name)
    registry.promote(name, "2", "champion")
    assert main(["models", "diff", f"{name}:1", f"{name}@champion", "--json", *store]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["left"], told["right"]) == (f"{name}:1", f"{name}:2")
    differences = {(each["section"], each["key"]): (each["left"], each["right"]) for each in told["differences"]}
    weights = [registry.resolve(f"{name}:{number}").files["model.safetensors"].sha256[:12] for number in (1, 2)]
    assert differences == {
        ("model", "sha256.model.safetensors"): tuple(weights),
        ("config", "config.optimizer.lr"): ("0.1", "0.2"),
        ("data", "chest.manifest_sha256"): ("a" * 64, "b" * 64),
        ("metrics", "auc"): ("0.5", "0.75"),
        ("metrics", "dice"): (None, "0.5"),
    }
    assert main(["models", "diff", f"{name}:1", f"{name}:2", *store]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == ["model", "config", "data", "metrics"]
    assert next(line.split() for line in lines if "optimizer.lr" in line) == ["config.optimizer.lr", "0.1", "0.2"]
    assert main(["models", "diff", f"{name}:1", f"{name}:1", *store]) == 0
    assert capsys.readouterr().out == f"{name}:1 and {name}:1 do not differ\n"
