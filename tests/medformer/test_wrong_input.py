"""What a tired person gives to a command: one line that names it, status 2, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.support.documents import read_mapping
from data_shards.support.errors import ConfigError
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, tiny_backbone

PRETRAIN = """
out: run
data: {datasets: [{path: shards}], batch_size: 8}
objectives: {simclr: {}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a folder of images with a table, documents, and a file where folders are asked for."""
    folder = tmp_path_factory.mktemp("made")
    save_bundle(folder / "bundle", tiny_backbone(), "medformer_nano", TINY, {}, {})
    (folder / "images").mkdir()
    lines = ["file,label"]
    for index in range(4):
        np.save(folder / "images" / f"{index}.npy", np.full((16, 16), index, np.uint8))
        lines.append(f"{index}.npy,{'ab'[index % 2]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "twice.yaml").write_text("model: bundle\ndata: images\nmodel: other\n")
    (folder / "pretrain.yaml").write_text(PRETRAIN)
    (folder / "generator.yaml").write_text("{out: run, shards: shards, generator: {}}")
    return folder


FIT = "finetune --model bundle --data images --csv table.csv"
SOME = {
    f"{FIT} --device gpu --out x": "device: unknown device 'gpu'; expected cpu, cuda",
    f"{FIT} --device meta --out x": "device: a network on 'meta' has no values",
    f"{FIT} --device cuda:99 --out x": "device: 'cuda:99' cannot be used on this machine: ",
    "embed bundle --data images --device gpu --out x.npz": "device: unknown device 'gpu'",
    "evaluate bundle --data nowhere --device gpu --out x": "device: unknown device 'gpu'",
    "predict bundle --data images --device gpu --out x.csv": "device: unknown device 'gpu'",
    "explain bundle --data images --method occlusion --device gpu --out x": "device: unknown device 'gpu'",
    "robustness bundle --data images --device gpu --out x": "device: unknown device 'gpu'",
    f"{FIT} --out table.csv/x": "table.csv is a file",
    "embed bundle --data images --out deep/er/x.npz": "cannot write deep/er/x.npz: there is no folder deep/er",
    "predict images --data images --out deep/x.csv": "cannot write deep/x.csv: there is no folder deep",
    "predict images --data images --overwrite --out images": "images: a folder; expected the name of a file",
    "predict images --data bundle --out x.csv": "images: not a fitted classifier: classifier.json is missing",
    "report images --out deep/x.html": "cannot write deep/x.html: there is no folder deep",
    "views show pretrain.yaml --sheet deep/x.png": "cannot write deep/x.png: there is no folder deep",
    "finetune --config twice.yaml --out x": "twice.yaml: not a YAML document: key 'model' stands twice, in lines",
    "shards inspect table.csv": "table.csv: not a folder of shards: no manifest.json",
    "shards augment images --seed -1 --out x": "--seed: expected 0 or a number above it, found -1",
    "shards build phantoms --set phantom-brain-mri seed=-1 --out x": "options: seed: Input should be greater",
    "shards build phantoms --workers 0 --out x": "--workers: expected a number above 0, found 0",
    "shards build phantoms --shard-mb nan --out x": "--shard-mb: expected a size above 0, found nan",
    "plan pretrain.yaml data.datasets.5.path=x": "no entry 5 in a list of 1, counted from 0",
    "plan pretrain.yaml model.kwargs.depth=true": "medformer_nano cannot be made: depth: expected a number",
    "pretrain pretrain.yaml out=table.csv/x": "table.csv is a file",
    "pretrain generator.yaml out=table.csv/x": "table.csv is a file",
    "pretrain generator.yaml out=x generator.widht=3": "unknown key 'generator.widht'; did you mean 'width'?",
}


@pytest.mark.parametrize("words", SOME)
def test_it_is_one_line_and_leaves_nothing(
    words: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    before = sorted(made.rglob("*"))
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert SOME[words] in error and len(error.splitlines()) == 1, error
    assert sorted(made.rglob("*")) == before


def test_keys_of_other_mappings_may_be_alike_and_a_merged_one_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("a: [{x: 1}, {x: 2}]\nb: &b {x: 1, y: 2}\nc: {<<: *b, x: 3}\n")
    assert read_mapping(path) == {"a": [{"x": 1}, {"x": 2}], "b": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}}
    path.write_text("a: {x: 1, x: 2}\n")
    with pytest.raises(ConfigError, match="key 'x' stands twice, in lines 1 and 1"):
        read_mapping(path)
